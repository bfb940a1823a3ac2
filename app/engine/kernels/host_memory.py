"""The C library's heap, told to keep what a forward frees: the next one needs as much.

Knows nothing of models. Called once, while the engine is made; applies to the whole process.
"""

import ctypes

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

# mallopt takes an int: two gigabytes of free heap are kept, and blocks up to one come from the heap.
_KEPT_BYTES = 2**31 - 1
_LARGEST_BLOCK = 2**30


def keep_freed_memory() -> bool:
    """Let freed blocks stay with the process rather than go back to the system after every forward.

    A forward on the CPU allocates and frees megabytes for each layer. By default glibc may give them back and fault
    every page in again: it depends on what else lies in the heap, so that some processes pay a fifth of their time for
    it and others nothing (docs/decisions/0030).

    Returns:
        Whether the C library took it; others than glibc have no such switch.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES) and mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
    )
