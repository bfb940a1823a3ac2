"""`python -m bench.demo_pack`: measure the shipped demo pack, compare with the targets, and show what it draws.

Reads the pack through the upstream libraries, in float32 on the CPU, just as a user would; trains nothing that ships.
"""
