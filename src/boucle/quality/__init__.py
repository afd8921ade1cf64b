"""The promise checked: decoding, checking, and what happens to readings that break it."""
