"""What happens inside the training step: taps on layers, records of their tensors."""
