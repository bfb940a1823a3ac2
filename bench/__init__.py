"""Measurements of what the project claims about itself; never imported by the application."""
