"""Threads and memory of an API process."""
