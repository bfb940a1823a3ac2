"""Layers and forwards that are optimized for a processor or a GPU."""
