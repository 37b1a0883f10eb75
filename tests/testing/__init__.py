"""The server for tests of mail clients."""
