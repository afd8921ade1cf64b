"""Event time: watermarks, late rows, duplicates."""
