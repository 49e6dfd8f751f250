"""What a recipe ran in."""
