"""What llama.cpp allocates: `engine` answers, the other modules are its parts."""
