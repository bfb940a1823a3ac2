"""Settings of the C library's heap: memory that a forward frees stays with the process for the next one.

Imports no torch and no model. Called once, before the engine starts; applies to the whole process.
"""

import ctypes

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

# mallopt takes an int: 2 GiB of free heap are kept, and blocks of up to 1 GiB are taken from the heap.
_KEPT_BYTES = 2**31 - 1
_LARGEST_BLOCK = 2**30


def keep_freed_memory() -> bool:
    """Keep freed blocks in the process instead of returning them to the system after every forward.

    A forward on the CPU allocates and frees megabytes for each layer. By default glibc may return them to the system
    and fault every page in again: it depends on the other blocks in the heap, so that some processes spend a fifth of
    their time on it and others none (docs/decisions/0030).

    Returns:
        Whether the C library accepted the settings; only glibc has them.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES) and mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
    )
