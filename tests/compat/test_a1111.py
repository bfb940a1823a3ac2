"""`webuiapi`, unmodified, against a node; and what SillyTavern and Open WebUI send."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import webuiapi
from PIL import Image

from app.api.compat.a1111.drawings import DrawingBook
from app.api.compat.a1111.txt2img import read_loras
from testing.fake_models import CLASSES
from testing.node import Node
from testing.waiting import PATIENCE_S, wait_until
from tests.compat.conftest import Guarded


@contextmanager
def client_of(node: Node, key: str | None = None) -> Iterator[webuiapi.WebUIApi]:
    client = webuiapi.WebUIApi(host=node.http.base_url.host, port=node.http.base_url.port)
    if key is not None:
        client.session.headers["Authorization"] = f"Bearer {key}"
    try:
        yield client
    finally:
        client.session.close()


@pytest.fixture
def client(shared_node: Node) -> Iterator[webuiapi.WebUIApi]:
    with client_of(shared_node) as client:
        yield client


def test_the_images_are_those_of_the_native_route(client: webuiapi.WebUIApi, shared_node: Node) -> None:
    result = client.txt2img(
        prompt="a red fox",
        negative_prompt="blurry",
        seed=42,
        steps=3,
        cfg_scale=2.5,
        width=64,
        height=128,
        batch_size=2,
        n_iter=2,
        sampler_name="DPM++ 2M",
        scheduler="Karras",
    )
    native = {
        "prompt": "a red fox",
        "negative_prompt": "blurry",
        "seed": 42,
        "num_inference_steps": 3,
        "guidance_scale": 2.5,
        "width": 64,
        "height": 128,
        "num_images_per_prompt": 4,
        "scheduler": "dpmpp_2m_karras",
        "response_format": "b64_json",
    }
    expected = shared_node.http.post("/generate", json=native).raise_for_status().json()["images"]
    assert result.json["images"] == [image["b64_json"] for image in expected]
    assert result.info["all_seeds"] == [42, 43, 44, 45]
    assert result.info["warnings"] == []
    assert "Sampler: DPM++ 2M Karras" in result.info["infotexts"][0]
    assert result.parameters["width"] == 64
    assert client.png_info(result.image).info == result.info["infotexts"][0]


def test_their_defaults_are_drawn_and_what_is_not_honoured_is_told(client: webuiapi.WebUIApi) -> None:
    result = client.txt2img(prompt="a fox", enable_hr=True, tiling=True, steps=1, sampler_name="Heun")
    assert result.image.size == (192, 192)
    codes = sorted(warning["code"] for warning in result.info["warnings"])
    assert codes == ["field_not_used", "field_not_used", "scheduler_not_used", "size_mapped"]
    assert result.info["seed"] >= 0


def test_strict_refuses_what_is_not_honoured(shared_node: Node) -> None:
    body = {"prompt": "a fox", "steps": 1, "tiling": True, "strict": True, "width": 64, "height": 64}
    answer = shared_node.http.post("/sdapi/v1/txt2img", json=body)
    assert (answer.status_code, "does not tile" in answer.json()["detail"]) == (422, True)
    assert shared_node.http.post("/sdapi/v1/txt2img", json={**body, "tiling": False}).status_code == 200


def in_base64(image: Image.Image) -> dict[str, str]:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return {"image_b64": base64.b64encode(buffer.getvalue()).decode()}


def test_images_from_images_are_those_of_the_native_route(client: webuiapi.WebUIApi, shared_node: Node) -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    common = {"prompt": "a red fox", "seed": 42, "steps": 10, "width": 64, "height": 64}
    native = {
        "prompt": "a red fox",
        "seed": 42,
        "num_inference_steps": 10,
        "guidance_scale": 7.0,
        "scheduler": "euler_a",
    }
    for asked, changes in (
        ({"denoising_strength": 0.5}, {"strength": 0.5}),
        ({"denoising_strength": 0.5, "batch_size": 2}, {"strength": 0.5, "num_images_per_prompt": 2}),
        (
            {"denoising_strength": 1.0, "mask_image": mask, "mask_blur": 0, "inpainting_mask_invert": 1},
            {"strength": 1.0, "mask": in_base64(mask), "mask_invert": True},
        ),
        ({"mask_image": mask}, {"mask": in_base64(mask), "mask_blur": 4}),
    ):
        result = client.img2img(images=[picture], **common, **asked)
        body = {**native, **changes, "init_image": in_base64(picture), "response_format": "b64_json"}
        expected = shared_node.http.post("/generate", json=body).raise_for_status().json()
        for image, one in zip(result.images, expected["images"], strict=True):
            with Image.open(io.BytesIO(base64.b64decode(one["b64_json"]))) as drawn:
                assert image.tobytes() == drawn.tobytes()
        assert result.info["denoising_strength"] == expected["parameters"]["strength"]
        assert f"Denoising strength: {result.info['denoising_strength']}" in result.info["infotexts"][0]


def test_what_the_client_reads(client: webuiapi.WebUIApi) -> None:
    assert client.util_get_model_names() == ["demo [fake]"]
    assert client.util_get_current_model() == "demo [fake]"
    assert client.set_options({"sd_model_checkpoint": "demo [fake]", "CLIP_stop_at_last_layers": 2}) == {}
    assert "model_not_found" in client.set_options({"sd_model_checkpoint": "other"})["error"]
    assert {"Euler a", "PLMS", "DPM++ 2M Karras"} <= set(client.util_get_sampler_names())
    assert "automatic" in client.util_get_scheduler_names()
    assert client.get_scripts() == {"txt2img": [], "img2img": []}
    assert client.get_sd_vae() == client.get_upscalers() == client.get_latent_upscale_modes() == []
    assert client.get_loras() == client.get_hypernetworks() == client.get_face_restorers() == []
    assert client.get_realesrgan_models() == client.get_prompt_styles() == []
    assert client.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert client.refresh_checkpoints() == {}
    assert client.get_cmd_flags() == {}
    assert client.get_memory() == {"ram": {}, "cuda": {}}
    client.util_wait_for_ready()


def test_an_image_is_named_by_the_label_that_clip_scores_highest(node: Node) -> None:
    with client_of(node) as client:
        for favourite in CLASSES:
            node.models.clip.score = lambda _, text, favourite=favourite: float(text == favourite)
            assert client.interrogate(Image.new("RGB", (64, 64), "red")).info == favourite
        with pytest.raises(RuntimeError, match="base64"):
            client.interrogate("no image")


def test_bad_input_is_the_clients_own_exception(client: webuiapi.WebUIApi, shared_node: Node) -> None:
    for arguments, told in (({"steps": 151}, "at most 150"), ({"prompt": ""}, "at least 1"), ({"seed": -2}, "seed")):
        with pytest.raises(RuntimeError, match=told) as refusal:
            client.txt2img(**{"prompt": "a fox", **arguments})
        assert refusal.value.args[0] == 422
    picture = Image.new("RGB", (64, 64), "red")
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"mask_image": Image.new("L", (32, 32))}, "64 x 64"),
        ({"denoising_strength": 1.5}, "denoising_strength"),
        ({"denoising_strength": 0.04}, "less than one step"),
        ({"images": []}, "init_images"),
    )
    for change, told in changes:
        with pytest.raises(RuntimeError, match=told) as refusal:
            client.img2img(**{"images": [picture], "prompt": "a dog", **change})
        assert refusal.value.args[0] == 422
    assert set(shared_node.http.get("/sdapi/v1/nothing").json()) >= {"error", "detail", "errors"}


def test_progress_and_interrupt_mean_the_newest_drawing_of_the_caller(node: Node) -> None:
    diffusion = node.models.diffusion
    diffusion.gate.clear()
    ended: list[RuntimeError] = []

    def draw() -> None:
        with client_of(node) as client, pytest.raises(RuntimeError, match="interrupted") as refusal:
            client.txt2img(prompt="a fox", steps=50, batch_size=2)
        ended.append(refusal.value)

    thread = threading.Thread(target=draw)
    thread.start()
    assert diffusion.stepping.wait(PATIENCE_S)
    with client_of(node) as client:
        wait_until(lambda: client.get_progress()["state"]["sampling_steps"] > 0)
        progress = client.get_progress()
        assert (progress["state"]["job_count"], progress["state"]["interrupted"]) == (1, False)
        assert 0 <= progress["progress"] < 1
        assert progress["current_image"] is None
        assert client.interrupt() == {}
        thread.join(PATIENCE_S)
        assert [error.args[0] for error in ended] == [409]
        diffusion.gate.set()
        wait_until(lambda: not any(node.models.engine.in_flight().values()))
        assert diffusion.num_steps < 100
        assert client.get_progress()["state"]["job_count"] == 0
        assert client.interrupt() == client.skip() == {}


def test_a_drawing_shows_its_newest_preview() -> None:
    book = DrawingBook()
    with book.begin("caller", 1) as drawing:
        drawing.report(0, 1, 9, b"first")
        drawing.report(0, 2, 9)
        assert drawing.preview == b"first"


def test_tags_of_loras_leave_the_prompt_and_brackets_are_weights(client: webuiapi.WebUIApi) -> None:
    assert read_loras("a fox <lora:ink:0.5>, <lora:wash> <lora:a b:-1:2>") == (
        "a fox ,  ",
        [{"name": "ink", "weight": 0.5}, {"name": "wash", "weight": 1.0}, {"name": "a b", "weight": -1.0}],
    )
    with pytest.raises(RuntimeError, match="lora"):
        client.txt2img(prompt="a fox <lora:none:0.5>", steps=1, width=64, height=64)
    info = client.txt2img(prompt="a (red:1.2) fox", steps=1, width=64, height=64).info
    assert info["prompt"] == "a (red:1.2) fox"


def test_open_webui_and_sillytavern(shared_node: Node) -> None:
    """The sequence of requests that each of them sends."""
    http, empty = shared_node.http, {"authorization": ""}
    options = http.get("/sdapi/v1/options", headers=empty).json()
    assert http.get("/sdapi/v1/sd-models", headers=empty).json()[0]["title"] == options["sd_model_checkpoint"]
    for path in ("upscalers", "latent-upscale-modes", "sd-vae", "samplers", "schedulers", "progress"):
        assert http.get(f"/sdapi/v1/{path}").status_code == 200
    body = {
        "prompt": "a fox",
        "negative_prompt": "",
        "sampler_name": "Euler a",
        "scheduler": "normal",
        "steps": 1,
        "cfg_scale": 7,
        "width": 512,
        "height": 512,
        "restore_faces": False,
        "enable_hr": False,
        "hr_upscaler": "Latent",
        "hr_scale": 2,
        "denoising_strength": 0.7,
        "hr_second_pass_steps": 0,
        "seed": -1,
        "clip_skip": 1,
        "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic"},
        "save_images": True,
        "override_settings_restore_afterwards": True,
        "send_images": True,
        "do_not_save_grid": False,
    }
    answer = http.post("/sdapi/v1/txt2img", json=body, headers=empty).json()
    assert base64.b64decode(answer["images"][0]).startswith(b"\x89PNG")
    assert [one["code"] for one in json.loads(answer["info"])["warnings"]] == ["size_mapped"]
    assert http.post("/sdapi/v1/interrupt").json() == {}


def test_keys(guarded: Guarded) -> None:
    with client_of(guarded.node, guarded.key) as client:
        assert client.txt2img(prompt="a fox", steps=1).images
    with client_of(guarded.node, guarded.reader) as client:
        assert client.util_get_model_names() == ["demo [fake]"]
        with pytest.raises(RuntimeError, match="scope generate"):
            client.txt2img(prompt="a fox")
    with client_of(guarded.node) as client, pytest.raises(RuntimeError, match="API key"):
        client.txt2img(prompt="a fox")
