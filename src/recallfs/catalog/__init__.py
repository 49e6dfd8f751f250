"""What is known: entries and their evidence, in sidecars (the truth) and a database (an index)."""
