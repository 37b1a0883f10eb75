"""Real mail programs against a real server."""
