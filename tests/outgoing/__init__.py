"""Tests of mail that goes out: the queue, its parts alone, and real servers that hand mail on."""
