"""Pictures to upload, and datasets that contain only uploads."""

import io
from typing import Any

import httpx
import numpy as np
from PIL import Image

CLASSES = ["Fox! | <b>`` ../..", "dog"]


def picture(seed: int, image_format: str = "PNG", size: tuple[int, int] = (16, 12), **options: Any) -> bytes:
    """Return an image file of noise, determined by `seed`; `options` are Pillow's."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


def create_empty(http: httpx.Client, name: str = "fox-dog", **changes: object) -> dict[str, Any]:
    """Create a dataset without generated images."""
    classes = [{"name": label, "prompts": ["a fox"]} for label in CLASSES]
    fields = {"name": name, "seed": 7, "classes": classes, "train_per_class": 0, "test_per_class": 0, **changes}
    answer = http.post("/datasets", json=fields)
    assert answer.status_code == 202, answer.text
    read: dict[str, Any] = answer.json()
    return read


def upload(http: httpx.Client, dataset_id: str, files: list[bytes], **fields: str) -> httpx.Response:
    """Upload files under hostile names."""
    parts = [("files", ("../../etc/p\u0000asswd.exe", data, "text/html")) for data in files]
    form = {"class_name": CLASSES[0], "split": "train", **fields}
    return http.post(f"/datasets/{dataset_id}/images", data=form, files=parts)


def fill(http: httpx.Client, dataset_id: str, num_train: int = 4, num_test: int = 2) -> None:
    """Upload `num_train` and `num_test` different pictures to each class."""
    for index, label in enumerate(CLASSES):
        for split, num, base in (("train", num_train, 1_000), ("test", num_test, 2_000)):
            files = [picture(base + 100 * index + k) for k in range(num)]
            assert not files or upload(http, dataset_id, files, class_name=label, split=split).status_code == 201
