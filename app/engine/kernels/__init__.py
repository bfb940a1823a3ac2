"""Layers and forwards that are optimized for a CPU or a GPU. Imports nothing of the application."""
