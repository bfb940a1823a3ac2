"""Foxhound: from a prompt to a trained image classifier, behind one REST service."""

__version__ = "0.2.0"
