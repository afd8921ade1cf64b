"""The benchmarks: `python -m bench.NAME [--quick] [--json]`, or all of them with `make bench`."""
