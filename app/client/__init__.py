"""A Foxhound service seen from outside, over HTTP; for the command line."""
