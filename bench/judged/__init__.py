"""How others judge: the published scores of public data sets, and our figure inside their tables."""
