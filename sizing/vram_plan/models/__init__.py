"""What is to be run: from the text that names a model to its weights and cache layers."""
