"""The daemon: composition root, checks before the start, its account of itself."""
