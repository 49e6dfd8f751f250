"""Registered, versioned transformations and the child process that runs them."""
