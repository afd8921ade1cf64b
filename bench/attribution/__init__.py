"""The benchmark of the verdicts: episodes of the simulated line, what is told about them, and how it is scored."""
