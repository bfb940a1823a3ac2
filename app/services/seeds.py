"""Where every image of a dataset has its seed from: its place alone."""

import hashlib


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
    digest = hashlib.sha256()
    for value in (dataset_seed, class_name, split, index, attempt):
        encoded = str(value).encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return int.from_bytes(digest.digest()[:7], "big") >> 3
