"""Reading parts of files that are not here: verified, kept, and shared by a user's processes."""
