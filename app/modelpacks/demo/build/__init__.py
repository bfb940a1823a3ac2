"""Draws, trains, exports and measures the demo pack: `python -m app.modelpacks.demo.build --help`.

Development only: the running service never imports this package.
"""
