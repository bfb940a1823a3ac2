"""`speed: fast` on the wire, with the real diffusion code on tiny weights and few-step weights of the pack's own."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from app.modelpacks.loading import load_diffusion
from testing.lora_files import lora_tensors, write_lora
from testing.node import Node, make_settings, serve
from testing.tiny_diffusion import models_with_few_steps
from testing.waiting import wait_until

FAST = {"prompt": "a fox", "seed": 3, "speed": "fast"}
OWN = {"num_inference_steps": 4, "guidance_scale": 1.0, "scheduler": "ddim", "timestep_spacing": "trailing"}
CLASSES = [{"name": name, "prompts": [f"a {name}"]} for name in ("fox", "dog")]


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loras")


@pytest.fixture(scope="module", params=["with LoRAs", "without"])
def fast(
    request: pytest.FixtureRequest, loras: Path, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    """A node whose pack has few-step weights, with and without a folder of LoRAs."""
    models = models_with_few_steps(tmp_path_factory.mktemp("tiny"), OWN)
    parts = load_diffusion(models.tiny, torch.device("cpu"), torch.float32)
    write_lora(loras / "style.safetensors", lora_tensors(parts.unet, parts.text_encoder, alpha=4.0))
    data = tmp_path_factory.mktemp("node")
    shutil.copyfile(sqlite_template, data / "foxhound.db")
    folder = {"loras_dir": loras} if request.param == "with LoRAs" else {}
    with serve(make_settings(data, f"sqlite:///{data / 'foxhound.db'}", **folder), models) as served:
        wait_until(lambda: served.http.get("/readyz").status_code == 200)
        yield served


def generate(node: Node, **changes: Any) -> dict[str, Any]:
    answer = node.http.post("/generate", json={**FAST, **changes}, timeout=60)
    assert answer.status_code == 200, answer.text
    read: dict[str, Any] = answer.json()
    return read


def sha(generation: dict[str, Any]) -> str:
    return str(generation["images"][0]["sha256"])


def lineage_of(node: Node, generation: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = node.http.get(f"/images/{generation['images'][0]['id']}/metadata").json()["lineage"]
    return read


def test_a_request_that_names_the_speed_alone_has_its_settings_and_says_so(fast: Node) -> None:
    made = generate(fast)
    assert OWN.items() <= made["parameters"].items()
    assert made["warnings"] == []
    lineage = lineage_of(fast, made)
    assert {**OWN, "speed": "fast", "forecast": None}.items() <= lineage.items()
    assert len(lineage["few_step_sha256"]) == 64
    assert "adapter_files" not in lineage
    again = fast.http.post("/generate", json=made["parameters"], timeout=60).json()
    assert sha(again) == sha(made)
    slow = generate(fast, speed="exact", **OWN)
    assert sha(slow) != sha(made), "it has weights of its own"
    assert "few_step_sha256" not in lineage_of(fast, slow)


def test_capabilities_name_the_speed_with_its_settings(fast: Node) -> None:
    speeds = {each["name"]: each for each in fast.http.get("/capabilities").json()["speeds"]}
    assert list(speeds) == ["exact", "balanced", "fast"]
    assert speeds["fast"]["defaults"] == {**OWN, "max_num_inference_steps": 8}
    assert (speeds["exact"]["defaults"], speeds["balanced"]["defaults"]) == (None, None)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_inference_steps": 2}, "num_inference_steps"),
        ({"scheduler": "lcm"}, "scheduler, timestep_spacing"),
        ({"timestep_spacing": "leading"}, "timestep_spacing"),
        ({"timesteps": [999, 749, 499, 249]}, "timestep_spacing"),
    ],
)
def test_settings_that_it_was_not_trained_for_are_used_and_warned_of(
    fast: Node, changes: dict[str, Any], named: str
) -> None:
    made = generate(fast, **changes)
    assert changes.items() <= made["parameters"].items()
    [warning] = made["warnings"]
    assert warning["code"] == "fast_settings"
    assert f": {named}. " in warning["detail"]


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"num_inference_steps": 9}, "#/num_inference_steps", "too_many_steps"),
        ({"guidance_scale": 7.5}, "#/guidance_scale", "guidance_not_supported"),
        ({"timesteps": list(range(900, 0, -100))}, "#/num_inference_steps", "too_many_steps"),
        ({"num_inference_steps": 0}, "#/num_inference_steps", None),
    ],
)
def test_what_it_cannot_do_is_refused_with_its_place(
    fast: Node, changes: dict[str, Any], pointer: str, code: str | None
) -> None:
    for url, place in (("/generate", pointer), ("/generate/image", pointer)):
        answer = fast.http.post(url, json={**FAST, **changes})
        assert answer.status_code == 422, answer.text
        [error] = answer.json()["errors"]
        assert error["pointer"] == place
        assert code is None or error["code"] == code


def test_it_works_from_a_picture_with_candidates_and_previews(fast: Node) -> None:
    first = generate(fast)
    picture = {"image_id": first["images"][0]["id"]}
    varied = generate(fast, init_image=picture, strength=0.5)
    assert varied["parameters"]["num_inference_steps"] == 4
    assert sha(varied) != sha(first)
    best = generate(fast, best_of=3, num_images_per_prompt=1, labels=["a fox", "a dog"])
    assert len(best["images"]) == 1
    events = fast.http.post(
        "/generate", json={**FAST, "preview": 2}, headers={"Accept": "text/event-stream"}, timeout=60
    ).text
    assert '"steps":4' in events.replace(" ", "")
    refused = fast.http.post("/generate", json={**FAST, "init_image": picture, "strength": 0.2})
    assert refused.json()["errors"][0]["code"] == "strength_too_low"


def test_all_speeds_at_once_are_the_bytes_of_each_alone(fast: Node) -> None:
    bodies: list[dict[str, Any]] = [
        {},
        {"seed": 4},
        {"speed": "exact", "num_inference_steps": 12},
        {"speed": "balanced", "num_inference_steps": 20, "scheduler": "ddim"},
        {"width": 96, "height": 64},
    ]
    if fast.http.get("/capabilities").json()["loras"]:
        bodies += [{"loras": [{"name": "style"}]}, {"speed": "exact", "loras": [{"name": "style"}], **OWN}]
    alone = [sha(generate(fast, **body)) for body in bodies]
    assert len(set(alone)) == len(bodies)
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda body: sha(generate(fast, **body)), [*bodies, *bodies]))
    assert together == [*alone, *alone]


def test_a_repeat_at_another_speed_takes_that_speed_s_settings(fast: Node) -> None:
    first = generate(fast, speed="exact", num_inference_steps=3, guidance_scale=3.0)
    url = f"/generations/{first['id']}/repeat"
    faster = fast.http.post(url, json={"speed": "fast"}, timeout=60).json()
    assert {**OWN, "speed": "fast", "seed": 3}.items() <= faster["parameters"].items()
    assert sha(faster) == sha(generate(fast))
    slower = fast.http.post(f"/generations/{faster['id']}/repeat", json={"speed": "exact"}, timeout=60).json()
    usual = {"num_inference_steps": 50, "guidance_scale": 7.5, "timestep_spacing": None}
    assert usual.items() <= slower["parameters"].items()
    same = fast.http.post(f"/generations/{faster['id']}/repeat", json={}, timeout=60).json()
    assert sha(same) == sha(faster)


def test_datasets_take_it_also_with_a_preset(fast: Node) -> None:
    body: dict[str, Any] = {"name": "quick", "classes": CLASSES, "train_per_class": 1, "test_per_class": 0}
    body["generation"] = {"speed": "fast"}
    for changes in ({}, {"name": "varied", "preset": "diverse"}):
        made = fast.http.post("/datasets", json={**body, **changes})
        assert made.status_code == 202, made.text
        recorded = fast.http.get(f"/datasets/{made.json()['id']}").json()["generation"]
        assert {**OWN, "speed": "fast"}.items() <= recorded.items()
    body |= {"name": "guided", "generation": {"speed": "fast", "guidance_scale": {"min": 1.0, "max": 5.0}}}
    refused = fast.http.post("/datasets", json=body)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "#/generation/guidance_scale")


def test_a_broken_file_fails_the_model_and_says_which(
    sqlite_template: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("broken")
    models = models_with_few_steps(folder, OWN)
    path = folder / "few-step" / "unet.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    shutil.copyfile(sqlite_template, tmp_path / "foxhound.db")
    with serve(make_settings(tmp_path / "data", f"sqlite:///{tmp_path / 'foxhound.db'}"), models) as node:
        wait_until(lambda: node.http.get("/readyz").json()["models"]["diffusion"]["state"] == "failed")
        detail = node.http.get("/readyz").json()["models"]["diffusion"]["detail"]
    assert "few-step/unet.safetensors is truncated" in detail
