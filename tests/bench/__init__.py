"""Benchmarks: measured figures side by side, never an assertion on time."""
