"""Stores: each keeps the contract in ``tests/store_contract.py``; Maildirs in detail."""
