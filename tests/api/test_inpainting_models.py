"""A model of nine channels on the wire: listed, used with a mask, refused without; and the metrics of loading."""

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.metrics.series import PREFIX
from app.modelpacks.loading import load_diffusion
from testing.lora_files import lora_tensors, write_lora
from testing.node import Node, make_settings, serve
from testing.tiny_diffusion import TinyDiffusion, as_inpainting, build_seeded, cut_weights
from testing.waiting import wait_until

FOX = {"prompt": "a fox", "num_inference_steps": 2, "seed": 3, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def node(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node whose bound has room for one of its models at a time."""
    root = tmp_path_factory.mktemp("inpainting")
    models = {"second": build_seeded(root / "second", 1), "inpaint": as_inpainting(build_seeded(root / "inpaint", 2))}
    models["cut"] = cut_weights(build_seeded(root / "cut", 3))
    tiny = TinyDiffusion(root)
    parts = load_diffusion(tiny.tiny, torch.device("cpu"), torch.float32)
    (root / "loras").mkdir()
    write_lora(root / "loras" / "style.safetensors", lora_tensors(parts.unet, parts.text_encoder, alpha=4.0))
    shutil.copyfile(sqlite_template, root / "foxhound.db")
    settings = make_settings(
        root / "data",
        f"sqlite:///{root / 'foxhound.db'}",
        models=",".join(f"{name}={path}" for name, path in models.items()),
        models_mb=2,
        loras_dir=root / "loras",
    )
    with serve(settings, tiny) as served:
        wait_until(lambda: served.http.get("/readyz").status_code == 200)
        yield served


def in_base64(pixels: np.ndarray) -> dict[str, str]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return {"image_b64": base64.b64encode(buffer.getvalue()).decode()}


INIT = in_base64(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
MASK = in_base64(np.pad(np.full((64, 32), 255, np.uint8), ((0, 0), (0, 32))))
MASKED = {**FOX, "init_image": INIT, "mask": MASK}


def generate(node: Node, body: dict[str, Any]) -> dict[str, Any]:
    answer = node.http.post("/generate", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    read: dict[str, Any] = answer.json()
    return read


def test_it_is_listed_as_one_that_only_repaints(node: Node) -> None:
    models = node.http.get("/capabilities").json()["models"]
    modes = {name: model["drawing"]["modes"] for name, model in models.items() if model["drawing"]}
    every = ["text_to_image", "image_to_image", "inpainting"]
    assert modes == {"diffusion": every, "second": every, "inpaint": ["inpainting"], "cut": []}
    assert models["inpaint"]["drawing"]["loras"] == ["style"], "its other layers are those of the default model"


def test_it_repaints_and_is_recorded(node: Node) -> None:
    made = generate(node, {**MASKED, "model": "inpaint"})
    assert made["model"]["name"] == made["parameters"]["model"] == "inpaint"
    again = generate(node, {**MASKED, "model": "inpaint"})
    others = [generate(node, {**MASKED, "model": model}) for model in (None, "second")]
    blurred = generate(node, {**MASKED, "model": "inpaint", "mask_invert": True})
    styled = generate(node, {**MASKED, "model": "inpaint", "loras": [{"name": "style"}]})
    shas = [each["images"][0]["sha256"] for each in (made, *others, blurred, styled)]
    assert again["images"][0]["sha256"] == shas[0]
    assert len(set(shas)) == len(shas)


@pytest.mark.parametrize("given", [{}, {"init_image": INIT}, {"init_image": INIT, "strength": 0.5}])
def test_a_request_without_a_mask_is_refused_with_what_to_do(node: Node, given: dict[str, Any]) -> None:
    answer = node.http.post("/generate", json={**FOX, **given, "model": "inpaint"})
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["pointer"], error["code"]) == (422, "#/mask", "mask_missing")
    assert "name another model" in error["detail"]
    assert node.http.post("/generate", json={**FOX, **given}, timeout=60).status_code == 200


def test_what_is_loaded_and_evicted_is_counted(node: Node) -> None:
    def weights() -> dict[str, float]:
        lines = node.http.get("/metrics").text.splitlines()
        pairs = [line.rpartition(" ") for line in lines if line.startswith(f"{PREFIX}weights_")]
        return {name.removeprefix(f"{PREFIX}weights_"): float(value) for name, _, value in pairs}

    generate(node, {**MASKED, "model": "inpaint"})
    before = weights()
    assert before['loaded{kind="model"}'] == 1
    assert 1e6 < before['bytes{kind="model"}'] <= before['limit_bytes{kind="model"}'] == 2e6
    assert before['waiting_requests{kind="model"}'] == 0
    generate(node, {**FOX, "model": "second", "loras": [{"name": "style"}]})
    wait_until(lambda: weights()['evictions_total{kind="model"}'] == before['evictions_total{kind="model"}'] + 1)
    after = weights()
    assert after['loads_total{kind="model",result="loaded"}'] == before['loads_total{kind="model",result="loaded"}'] + 1
    assert after['loads_total{kind="adapters",result="loaded"}'] >= 1
    assert after['bytes{kind="adapters"}'] > 0
    assert after['loads_total{kind="model",result="failed"}'] == 0
    kinds = {name.partition("kind=")[2].partition('"')[2].partition('"')[0] for name in after}
    assert kinds == {"model", "adapters"}, "labels have few values, and no name of a model"
