"""The ledger and the one thread that closes parts and speaks to the line."""
