"""Finding what is wrong with stores, sources and this computer, and mending what is safe to."""
