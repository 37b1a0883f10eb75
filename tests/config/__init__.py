"""Settings, command line, file."""
