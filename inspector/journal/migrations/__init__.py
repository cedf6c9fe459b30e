"""Alembic's environment: the steps from any older journal to this program's tables."""
