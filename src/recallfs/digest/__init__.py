"""Digests of bytes and of content."""
