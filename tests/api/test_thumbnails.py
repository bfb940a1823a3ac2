"""`GET /images/{id}?width=`: small copies of stored images."""

import io
from pathlib import Path

import httpx
from PIL import Image

from testing.node import Node


def new_image(http: httpx.Client, side: int = 128) -> str:
    body = {"prompt": "a fox", "num_inference_steps": 1, "width": side, "height": side}
    answer = http.post("/generate", json=body)
    assert answer.status_code == 200, answer.text
    image_id: str = answer.json()["images"][0]["id"]
    return image_id


def size_of(answer: httpx.Response) -> tuple[int, int]:
    return Image.open(io.BytesIO(answer.content)).size


def copies(data_dir: Path) -> list[Path]:
    return list((data_dir / "thumbnails").rglob("*.webp"))


def test_a_copy_is_made_once_kept_and_deleted_with_its_image(node: Node) -> None:
    http, data_dir = node.http, node.settings.data_dir
    image_id = new_image(http)
    first = http.get(f"/images/{image_id}", params={"width": 48})
    assert (first.status_code, first.headers["content-type"], size_of(first)) == (200, "image/webp", (48, 48))
    assert first.headers["cache-control"] == "private, max-age=31536000, immutable"
    (kept,) = copies(data_dir)
    before = kept.stat().st_mtime_ns
    again = http.get(f"/images/{image_id}", params={"width": 48})
    assert (again.content, kept.stat().st_mtime_ns) == (first.content, before)
    known = http.get(f"/images/{image_id}?width=48", headers={"If-None-Match": first.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    other = http.get(f"/images/{image_id}?width=49", headers={"If-None-Match": first.headers["etag"]})
    assert (other.status_code, size_of(other)) == (200, (49, 49))
    whole = http.get(f"/images/{image_id}", params={"width": 512})
    assert size_of(whole) == (128, 128)  # never enlarged
    head = http.head(f"/images/{image_id}?width=48")
    assert (head.status_code, head.headers["etag"]) == (200, first.headers["etag"])

    generation_id = http.get(f"/images/{image_id}/metadata").json()["generation_id"]
    assert http.delete(f"/generations/{generation_id}").status_code == 204
    assert copies(data_dir) == []
    assert http.get(f"/images/{image_id}?width=48").status_code == 404


def test_what_is_no_width_is_refused_and_a_lost_file_is_named(node: Node) -> None:
    image_id = new_image(node.http)
    for width in ("15", "513", "-1", "x", "64.5", "1e9"):
        assert node.http.get(f"/images/{image_id}", params={"width": width}).status_code == 422
    (file,) = (node.settings.data_dir / "images").rglob("*.png")
    file.write_bytes(b"damaged")
    lost = node.http.get(f"/images/{image_id}?width=64")
    assert (lost.status_code, lost.json()["code"]) == (410, "image_file_damaged")
