"""Tests of recorded sessions that are played again."""
