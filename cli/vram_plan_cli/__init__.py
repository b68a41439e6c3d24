"""The command `vram-plan`: a client of the library's front door."""
