"""A mount (FUSE): programs that know nothing of recallfs see released files, and open them."""
