"""Annotated pictures of rejected parts."""
