"""What an engine really took, from its log, its server or the driver, held against a plan line by line."""
