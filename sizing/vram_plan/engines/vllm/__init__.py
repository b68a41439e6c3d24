"""What vLLM allocates: `engine` answers, the other modules are its parts."""
