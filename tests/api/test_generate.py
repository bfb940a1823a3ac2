"""POST /generate and what it stores."""

import base64
import hashlib
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import ExifTags, Image

from app.engine.diffusion.runner import GeneratedImage
from app.engine.request import EngineRequest
from app.storage.image_formats import read_settings
from testing.fake_models import BROKEN_PROMPT, FLAGGED_PROMPT, FakeDiffusion, FakeModels
from testing.node import Node, make_settings, serve
from testing.waiting import PATIENCE_S, wait_until
from testing.wire import asking

FOX = {"prompt": "a watercolor painting of a red fox", "num_inference_steps": 2, "seed": 42}


def generate(http: httpx.Client, **fields: object) -> dict:
    answer = http.post("/generate", json={**FOX, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def parameters_of(data: bytes) -> str:
    """Return the text in which Stable Diffusion tools look for an image's settings."""
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "PNG":
            return str(image.info["parameters"])
        comment: bytes = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    return comment.removeprefix(b"UNICODE\0").decode("utf-16-be")


def test_only_the_prompt_is_required_and_every_value_used_is_told(http: httpx.Client) -> None:
    answer = http.post("/generate", json={"prompt": "a fox", "num_inference_steps": 1})
    parameters = answer.json()["parameters"]
    assert answer.status_code == 200
    assert parameters.pop("seed") >= 0
    assert parameters == {
        "prompt": "a fox",
        "negative_prompt": "",
        "guidance_scale": 7.5,
        "num_inference_steps": 1,
        "num_images_per_prompt": 1,
        "width": 64,
        "height": 64,
        "scheduler": "pndm",
        "output_format": "png",
        "labels": None,
        "speed": "exact",
        "timestep_spacing": None,
        "timesteps": None,
        "guidance_interval": None,
        "init_image": None,
        "mask": None,
        "strength": None,
        "mask_blur": 0.0,
        "mask_invert": False,
        "prompt_syntax": "plain",
        "clip_skip": None,
        "best_of": None,
        "grid": False,
        "loras": [],
        "embeddings": [],
        "model": None,
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_image(http: httpx.Client) -> None:
    first, again, other = (generate(http, seed=seed)["images"][0] for seed in (42, 42, 43))
    assert first["sha256"] == again["sha256"] != other["sha256"]
    assert http.get(first["url"]).content == http.get(again["url"]).content


def test_image_k_of_a_request_is_the_image_of_seed_plus_k(http: httpx.Client) -> None:
    together = generate(http, num_images_per_prompt=3)["images"]
    alone = [generate(http, seed=seed)["images"][0] for seed in (42, 43, 44)]
    assert [image["seed"] for image in together] == [42, 43, 44]
    assert [image["sha256"] for image in together] == [image["sha256"] for image in alone]


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_an_image_is_served_in_the_format_asked_for_with_its_settings_inside(
    http: httpx.Client, output_format: str
) -> None:
    image = generate(http, output_format=output_format)["images"][0]
    answer = http.get(image["url"])
    assert answer.headers["content-type"] == f"image/{output_format}"
    assert answer.headers["etag"] == f'"{image["sha256"]}"' == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    assert "immutable" in answer.headers["cache-control"]
    assert Image.open(io.BytesIO(answer.content)).size == (64, 64)
    settings = read_settings(answer.content)
    assert settings is not None
    assert (settings["prompt"], settings["seed"], settings["scheduler"]) == (FOX["prompt"], 42, "pndm")
    assert not {"id", "created_at", "host"} & settings.keys()
    last_line = parameters_of(answer.content).splitlines()[-1]
    assert last_line == "Steps: 2, Sampler: PLMS, CFG scale: 7.5, Seed: 42, Size: 64x64, Model: demo"


def test_accept_image_answers_the_bytes_with_id_and_seed_in_headers(http: httpx.Client) -> None:
    answer = http.post("/generate", json=FOX, headers={"Accept": "image/webp"})
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["x-foxhound-seed"] == "42"
    stored = http.get(f"/images/{answer.headers['x-foxhound-image-id']}")
    assert stored.content == answer.content
    apart = {"date", "x-request-id", "last-modified"}
    headers = {name: value for name, value in stored.headers.items() if name not in apart}
    assert headers.items() <= answer.headers.items()
    assert "last-modified" in answer.headers
    assert answer.headers["content-location"] == stored.url.path


def test_accept_image_with_several_images_is_406(http: httpx.Client) -> None:
    answer = http.post("/generate", json={**FOX, "num_images_per_prompt": 2}, headers={"Accept": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (406, "several_images")


def test_accept_of_something_else_is_406(http: httpx.Client) -> None:
    assert http.post("/generate", json=FOX, headers={"Accept": "application/xml"}).status_code == 406


def test_b64_json_holds_the_stored_bytes(http: httpx.Client) -> None:
    image = generate(http, response_format="b64_json")["images"][0]
    assert base64.b64decode(image["b64_json"]) == http.get(image["url"]).content


def test_labels_score_every_image_in_the_order_given(http: httpx.Client) -> None:
    image = generate(http, labels=["a dog", "a red fox"])["images"][0]
    assert [entry["label"] for entry in image["label_probabilities"]] == ["a dog", "a red fox"]
    assert sum(entry["probability"] for entry in image["label_probabilities"]) == pytest.approx(1)
    assert 0 < image["clip_score"] <= 100


def test_a_cut_prompt_is_answered_with_a_warning_that_names_the_cut(http: httpx.Client) -> None:
    read = generate(http, prompt="word " * 80 + "and the end")
    assert read["warnings"][0]["code"] == "prompt_truncated"
    assert "and the end" in read["warnings"][0]["detail"]


def test_a_flagged_image_says_so(http: httpx.Client) -> None:
    assert generate(http, prompt=FLAGGED_PROMPT)["images"][0]["flagged"] is True


def test_ranges_and_conditional_requests_are_served(http: httpx.Client) -> None:
    image = generate(http)["images"][0]
    whole = http.get(image["url"]).content
    part = http.get(image["url"], headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])
    assert http.get(image["url"], headers={"If-None-Match": f'"{image["sha256"]}"'}).status_code == 304
    beyond = http.get(image["url"], headers={"Range": "bytes=99999999-"})
    assert (beyond.status_code, beyond.headers["content-type"]) == (416, "application/problem+json")


def test_the_lineage_tells_how_an_image_came_to_be(http: httpx.Client) -> None:
    image = generate(http, negative_prompt="blur", scheduler="ddim", width=128)["images"][0]
    metadata = http.get(f"{image['url']}/metadata").json()
    lineage = metadata["lineage"]
    assert (metadata["width"], metadata["height"]) == (128, 64)
    assert (lineage["negative_prompt"], lineage["scheduler"], lineage["width"]) == ("blur", "ddim", 128)
    assert {"pack", "pack_revision", "device", "dtype", "num_threads", "versions"} <= lineage.keys()


def test_a_generation_is_listed_read_and_deleted_with_its_files(node: Node) -> None:
    read = generate(node.http, num_images_per_prompt=2)
    listed = node.http.get("/generations").json()["items"]
    assert [item["id"] for item in listed] == [read["id"]]
    assert node.http.get(f"/generations/{read['id']}").json() == {**read, "images": listed[0]["images"]}
    assert node.http.delete(f"/generations/{read['id']}").status_code == 204
    assert node.http.get(f"/generations/{read['id']}").status_code == 404
    assert [node.http.get(image["url"]).status_code for image in read["images"]] == [404, 404]
    assert not list((node.settings.data_dir / "images").rglob("*.png"))


def test_pages_hold_every_generation_once_newest_first(http: httpx.Client) -> None:
    made = [generate(http, seed=seed)["id"] for seed in range(5)]
    seen, cursor = [], None
    while True:
        page = http.get("/generations", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(made, reverse=True)


def test_a_failed_image_is_a_500_problem_and_leaves_nothing_behind(node: Node) -> None:
    answer = node.http.post("/generate", json={**FOX, "prompt": BROKEN_PROMPT})
    assert (answer.status_code, answer.json()["code"]) == (500, "inference_failed")
    assert node.http.get("/images").json()["items"] == []
    generate(node.http)


def test_a_client_that_leaves_cancels_its_request(node: Node) -> None:
    diffusion = node.models.diffusion
    diffusion.gate.clear()
    left = threading.Event()
    with asking(node.http, "POST", "/generate", {**FOX, "num_inference_steps": 150}):
        wait_until(lambda: diffusion.running)
        diffusion.running[0].future.add_done_callback(lambda _: left.set())
    assert left.wait(PATIENCE_S)
    diffusion.gate.set()
    generate(node.http, num_inference_steps=1)
    assert diffusion.num_steps == 2


def test_a_full_queue_refuses_the_whole_request_at_once_with_retry_after(small_node: Node) -> None:
    small_node.models.diffusion.gate.clear()
    answer = small_node.http.post("/generate", json={**FOX, "num_images_per_prompt": 8})
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert int(answer.headers["retry-after"]) >= 1
    small_node.models.diffusion.gate.set()
    generate(small_node.http)


class _WatchedPixels(np.ndarray):
    """Pixels that say when the encoder looks at them."""

    on_look: Callable[[], object]

    @property
    def ndim(self) -> int:
        self.on_look()
        return super().ndim


class _SlowToEncode(FakeDiffusion):
    """The first image takes as long to encode as `may_end` is not set."""

    def __init__(self) -> None:
        super().__init__()
        self.encoding, self.may_end = threading.Event(), threading.Event()

    def finish(self, request: EngineRequest) -> GeneratedImage:
        image = super().finish(request)
        if self.encoding.is_set():
            return image
        watched = image.pixels.view(_WatchedPixels)
        watched.on_look = self._encode
        return replace(image, pixels=watched)

    def _encode(self) -> None:
        self.encoding.set()
        self.may_end.wait(PATIENCE_S)


def test_encoding_holds_up_neither_the_loop_nor_the_device(tmp_path: Path, database_url: str) -> None:
    models = FakeModels()
    models.diffusion = diffusion = _SlowToEncode()
    settings = make_settings(tmp_path / "data", database_url)
    with serve(settings, models) as node, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(generate, node.http, seed=1)
        assert diffusion.encoding.wait(PATIENCE_S)
        generate(node.http, seed=2)
        assert not slow.done()
        diffusion.may_end.set()
        assert slow.result()["images"][0]["seed"] == 1
