"""Draws, trains, exports and measures the demo pack: `python -m demo_pack.build --help`.

Development only: the running service never imports this package.
"""
