"""Fakes, fixtures and processes that tests and benchmarks share."""
