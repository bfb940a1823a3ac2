"""What makes several processes one node: the supervisor of `foxhound serve` and the lock on its data folder.

Knows nothing of torch, HTTP or SQL. The supervisor runs in the main thread of a process of its own.
"""
