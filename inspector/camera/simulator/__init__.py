"""A GenTL producer with simulated cameras, for the demo and the tests; the real harvesters opens it like any vendor's."""
