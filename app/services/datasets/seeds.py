"""Where every image of a dataset has its seed and its drawn settings from: its place and attempt alone."""

import hashlib

_BITS = 53


def image_seed(dataset_seed: int, class_name: str, split: str, index: int, attempt: int) -> int:
    """Return the seed of an image of a dataset, 0 .. 2^53 - 1.

    The first 53 bits of SHA-256 over the five values, each as UTF-8 text behind its length in bytes (8 bytes,
    big-endian), so that no two places share their input.

    Args:
        dataset_seed: The dataset's seed.
        class_name: The class as its users wrote it.
        split: `train` or `test`.
        index: Place in its class and split, >= 0.
        attempt: 0 for the first try at this image.
    """
    return _hashed_bits(dataset_seed, class_name, split, index, attempt)


def drawn_index(size: int, what: str, dataset_seed: int, class_name: str, split: str, index: int, attempt: int) -> int:
    """Draw one of `size` equally likely values for an image, 0 .. size - 1.

    A hash of its own for each thing drawn, so that one more variable changes none of the others.

    Args:
        size: How many values there are, 1 .. 2^20 (then the shares are equal to within 2^-33).
        what: What is drawn, e.g. `guidance_scale`.
        dataset_seed: As of `image_seed`, like the rest.
        class_name: The class as its users wrote it.
        split: `train` or `test`.
        index: Place in its class and split, >= 0.
        attempt: 0 for the first try at this image.
    """
    return _hashed_bits(dataset_seed, class_name, split, index, attempt, what) * size >> _BITS


def _hashed_bits(*values: int | str) -> int:
    digest = hashlib.sha256()
    for value in values:
        encoded = str(value).encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return int.from_bytes(digest.digest()[:7], "big") >> 56 - _BITS
