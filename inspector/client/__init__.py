"""What a line controller imports."""
