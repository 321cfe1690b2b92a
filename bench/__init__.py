"""Measurements, side by side: what is ours beside what is the least that the same work costs (docs/benchmarks.md)."""
