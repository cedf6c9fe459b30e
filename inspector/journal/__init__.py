"""The defect log in SQLite."""
