"""A limit on bytes per second that all downloads of a source share."""
