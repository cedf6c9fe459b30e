"""From trained weights to an engine and its manifest."""
