"""The event-file format: writes a recording to a TensorBoard log and reads it back."""
