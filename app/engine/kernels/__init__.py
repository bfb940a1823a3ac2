"""Layers and forwards that are optimized for a CPU or a GPU. Imports nothing else of the application."""
