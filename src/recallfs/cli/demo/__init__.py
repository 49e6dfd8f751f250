"""The demonstration: a recording made up for it, a recipe, and the story of one file."""
