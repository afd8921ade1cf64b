"""Tests of the simulated press line."""
