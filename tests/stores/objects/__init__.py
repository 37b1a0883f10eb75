"""Tests of mail on object storage."""
