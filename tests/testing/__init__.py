"""Tests of what helps to test mail programs."""
