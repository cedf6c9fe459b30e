"""The inspection daemon for production lines: one verdict per part, in time, never a silent loss."""
