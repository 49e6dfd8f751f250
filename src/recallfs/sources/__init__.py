"""Where bytes can come from; each source writes to staging only."""
