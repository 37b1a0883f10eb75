"""Tests of the store on object storage."""
