"""Sockets, TLS, the PROXY protocol, threads, and what is there for speed."""
