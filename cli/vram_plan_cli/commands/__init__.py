"""The commands: options in, one call of the library, a screen out."""
