"""The seed and the sampled settings of each image of a dataset, derived from its slot and attempt by a hash.

Imports only the standard library. Pure functions; any thread may call them.
"""

import hashlib

_BITS = 53


def image_seed(dataset_seed: int, class_name: str, split: str, index: int, attempt: int) -> int:
    """Return the seed of an image of a dataset, 0 .. 2^53 - 1.

    The first 53 bits of SHA-256 over the five values, each as UTF-8 text behind its length in bytes (8 bytes,
    big-endian), so that no two slots have the same input.

    Args:
        dataset_seed: The dataset's seed.
        class_name: The class name as given in the request.
        split: `train`, `validation` or `test`.
        index: Position in its class and split, >= 0.
        attempt: 0 for the first attempt at this image.
    """
    return _hashed_bits(dataset_seed, class_name, split, index, attempt)


def drawn_index(size: int, what: str, dataset_seed: int, class_name: str, split: str, index: int, attempt: int) -> int:
    """Sample one of `size` equally likely values for an image, 0 .. size - 1.

    Each setting has a hash of its own, so that adding a variable changes no other setting.

    Args:
        size: Number of values, 1 .. 2^20 (in this range their probabilities are equal to within 2^-33).
        what: Name of the sampled setting, e.g. `#guidance_scale`.
        dataset_seed: The dataset's seed.
        class_name: The class name as given in the request.
        split: `train`, `validation` or `test`.
        index: Position in its class and split, >= 0.
        attempt: 0 for the first attempt at this image.
    """
    return _hashed_bits(dataset_seed, class_name, split, index, attempt, what) * size >> _BITS


def _hashed_bits(*values: int | str) -> int:
    digest = hashlib.sha256()
    for value in values:
        encoded = str(value).encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return int.from_bytes(digest.digest()[:7], "big") >> 56 - _BITS
