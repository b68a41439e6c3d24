"""What transformers allocates: `engine` answers, `forward` sizes a forward pass."""
