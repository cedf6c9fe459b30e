"""Data sets, losses, training loop and evaluation."""
