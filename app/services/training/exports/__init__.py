"""Trained models as files and cards for people outside, and heat maps of what they see. Not for the worker process."""
