"""What every room shares: records, messages, the ring, errors. No I/O policy."""
