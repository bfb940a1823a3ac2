"""Speeds, timesteps and intervals of guidance on the wire: what is used, recorded, charged and refused."""

from typing import Any

import httpx
import pytest

from app.storage.image_formats import read_settings
from testing.node import Node

FOX = {"prompt": "a fox", "num_inference_steps": 20, "seed": 7, "scheduler": "ddim"}
LATER = {"speed", "forecast", "timestep_spacing", "timesteps", "guidance_interval"}


def generate(http: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = http.post("/generate", json={**FOX, **changes})
    assert answer.status_code == 200, answer.text
    read: dict[str, Any] = answer.json()
    return read


def lineage_of(http: httpx.Client, generation: dict[str, Any]) -> dict[str, Any]:
    image = generation["images"][0]
    lineage: dict[str, Any] = http.get(f"/images/{image['id']}/metadata").json()["lineage"]
    settings = read_settings(http.get(image["url"]).content)
    assert settings is not None
    assert {name: settings.get(name) for name in LATER} == {name: lineage.get(name) for name in LATER}
    return {name: lineage[name] for name in LATER & lineage.keys()}


@pytest.mark.parametrize(
    ("changes", "recorded"),
    [
        ({}, {}),
        ({"speed": "exact", "timestep_spacing": None}, {}),
        ({"speed": "balanced"}, {"speed": "balanced", "forecast": "linear-1"}),
        ({"speed": "balanced", "num_inference_steps": 8}, {"speed": "balanced", "forecast": None}),
        ({"speed": "balanced", "scheduler": "euler_a"}, {"speed": "balanced", "forecast": None}),
        ({"timestep_spacing": "trailing"}, {"timestep_spacing": "trailing"}),
        ({"guidance_interval": [0.1, 0.8]}, {"guidance_interval": [0.1, 0.8]}),
    ],
)
def test_what_is_used_is_recorded_and_nothing_else(
    shared_node: Node, changes: dict[str, Any], recorded: dict[str, Any]
) -> None:
    generation = generate(shared_node.http, **changes)
    assert lineage_of(shared_node.http, generation) == recorded
    told = {"speed": "exact", "timestep_spacing": None, "timesteps": None, "guidance_interval": None, **changes}
    assert {name: generation["parameters"][name] for name in told} == told


def test_timesteps_give_the_number_of_steps(shared_node: Node) -> None:
    body = {"prompt": "a fox", "scheduler": "dpmpp_2m", "timesteps": [999, 600, 20]}
    answer = shared_node.http.post("/generate", json=body)
    assert answer.status_code == 200, answer.text
    parameters = answer.json()["parameters"]
    assert (parameters["num_inference_steps"], parameters["timesteps"]) == (3, [999, 600, 20])
    assert lineage_of(shared_node.http, answer.json()) == {"timesteps": [999, 600, 20]}
    again = shared_node.http.post("/generate", json=parameters)
    assert again.json()["images"][0]["sha256"] == answer.json()["images"][0]["sha256"]


def test_one_image_as_bytes_takes_them_too(shared_node: Node) -> None:
    body = {"prompt": "a fox", "timesteps": [999, 500], "scheduler": "ddim"}
    answer = shared_node.http.post("/generate/image", json=body)
    assert answer.status_code == 200, answer.text
    settings = read_settings(answer.content)
    assert settings is not None
    assert (settings["timesteps"], settings["num_inference_steps"]) == ([999, 500], 2)


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"speed": "fast"}, "#/speed", "speed_not_offered"),
        ({"speed": "quick"}, "#/speed", None),
        ({"timestep_spacing": "karras"}, "#/timestep_spacing", None),
        ({"timestep_spacing": "trailing", "scheduler": "lcm"}, "#/timestep_spacing", "timesteps_not_supported"),
        ({"timesteps": [9] * 2}, "#/timesteps", "bad_timesteps"),
        ({"timesteps": [1, 9]}, "#/timesteps", "bad_timesteps"),
        ({"timesteps": []}, "#/timesteps", None),
        ({"timesteps": [1000, 1]}, "#/timesteps/0", None),
        ({"timesteps": [9, -1]}, "#/timesteps/1", None),
        ({"timesteps": [9.5, 1]}, "#/timesteps/0", None),
        ({"timesteps": [999, 1]}, "#", "one_schedule"),  # num_inference_steps says 20
        ({"timesteps": [9], "num_inference_steps": 1, "timestep_spacing": "leading"}, "#", "one_schedule"),
        ({"timesteps": [9], "num_inference_steps": 1, "scheduler": "dpmpp_2m_karras"}, "#/timesteps",
         "timesteps_not_supported"),
        ({"guidance_interval": [0.5, 0.5]}, "#/guidance_interval", "bad_guidance_interval"),
        ({"guidance_interval": [0.9, 0.1]}, "#/guidance_interval", "bad_guidance_interval"),
        ({"guidance_interval": [0.1]}, "#/guidance_interval", None),
        ({"guidance_interval": [0, 1.1]}, "#/guidance_interval/1", None),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_place(
    shared_node: Node, changes: dict[str, Any], pointer: str, code: str | None
) -> None:
    answer = shared_node.http.post("/generate", json={**FOX, **changes})
    assert answer.status_code == 422, answer.text
    [error] = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert code is None or error["code"] == code


def test_a_dataset_takes_the_settings_of_its_images(node: Node) -> None:
    generation = {"num_inference_steps": 10, "scheduler": "ddim", "speed": "balanced", "guidance_interval": [0.0, 0.8]}
    body = {"name": "speedy", "train_per_class": 1, "test_per_class": 0, "generation": generation}
    body["classes"] = [{"name": name, "prompts": [f"a {name}"]} for name in ("fox", "dog")]
    made = node.http.post("/datasets", json=body)
    assert made.status_code == 202, made.text
    dataset = f"/datasets/{made.json()['id']}"
    assert generation.items() <= node.http.get(dataset).json()["generation"].items()


def test_a_dataset_refuses_a_speed_that_the_pack_has_not(shared_node: Node) -> None:
    classes = [{"name": name, "prompts": [f"a {name}"]} for name in ("fox", "dog")]
    body = {"name": "no-such-speed", "classes": classes, "generation": {"speed": "fast"}}
    answer = shared_node.http.post("/datasets", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/generation/speed")


def test_capabilities_name_the_speeds_and_spacings(shared_node: Node) -> None:
    read = shared_node.http.get("/capabilities").json()
    assert [speed["name"] for speed in read["speeds"]] == ["exact", "balanced"]
    assert all(speed["measured"] == [] for speed in read["speeds"]), "this pack was never measured"
    assert read["timestep_spacings"] == ["leading", "trailing", "linspace"]
