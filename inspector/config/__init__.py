"""Station file, product recipe and engine recipe: strict, frozen, every problem told at once."""
