"""The event-file format: how a recording is written to TensorBoard logs and read back."""
