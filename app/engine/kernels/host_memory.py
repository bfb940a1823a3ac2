"""Settings of the process's memory: freed blocks stay with it, and loaded models are no part of garbage collections.

Imports no torch and no model. Each function is called once, before the engine starts or when its models are loaded.
"""

import ctypes
import gc

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


def exempt_from_collection() -> None:
    """Exempt all present objects from Python's garbage collections.

    torch, diffusers and transformers leave 640,000 objects, which live as long as the process. A full collection
    visits each, and holds every thread meanwhile: 0.25 s on two idle cores. Garbage is collected first.

    Source: `gc.freeze` of Python's `gc` module.
    """
    gc.collect()
    gc.freeze()
