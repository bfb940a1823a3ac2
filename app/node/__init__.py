"""The processes of one node: supervisor, lock on the data folder, and the socket between worker and engine.

Imports neither torch nor SQLAlchemy. The supervisor runs on the main thread of its own process.
"""
