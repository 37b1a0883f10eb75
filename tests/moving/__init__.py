"""Tests of moving mail in from other servers."""
