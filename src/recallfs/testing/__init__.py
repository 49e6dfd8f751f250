"""Shipped test tools: fault points and loopback sources."""
