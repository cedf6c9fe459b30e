"""Generated surfaces with planted defects: demo, tests and demo training. No torch."""
