"""Help for who tests mail programs."""
