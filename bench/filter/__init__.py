"""`python -m bench.filter`: which of a set of mislabelled pictures does our CLIP filter remove, and what else?

Draws with the shipped demo pack through the upstream libraries; the rules alone are compared, on the same pictures.
"""
