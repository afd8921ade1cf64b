"""What was promised: the data product, its contract and its loop, read from one file."""
