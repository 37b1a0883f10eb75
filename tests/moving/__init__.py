"""Moving in from other servers: their files, their unique-ids, and their clients afterwards."""
