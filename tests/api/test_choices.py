"""`best_of`, `grid`, weighted prompts, and repeating a generation with other settings."""

import base64
import io
from typing import Any

import httpx
import pytest
from PIL import Image

from app.schemas.source_images import SAMPLE_PNG
from testing.node import Node
from tests.api.test_previews import work

FOX = {"prompt": "a red fox", "num_inference_steps": 2, "seed": 42, "scheduler": "ddim"}
ASYNC = {"Prefer": "respond-async"}


def generate(http: httpx.Client, **fields: object) -> dict[str, Any]:
    answer = http.post("/generate", json={**FOX, **fields})
    assert answer.status_code == 200, answer.text
    read: dict[str, Any] = answer.json()
    return read


def prefer_seeds(node: Node) -> list[int]:
    """Let CLIP like a picture by its blue noise, and return the seeds 42 to 46 as it ranks them."""
    node.models.clip.score = lambda picture, _text: (
        picture.resize((1, 1)).getpixel((0, 0))[1] + float(sum(picture.getpixel((0, 0))))
    )
    alone = [generate(node.http, seed=seed, labels=["fox"]) for seed in range(42, 47)]
    scores = {read["images"][0]["seed"]: read["images"][0]["clip_score"] for read in alone}
    assert len(set(scores.values())) == 5
    return sorted(scores, key=lambda seed: -scores[seed])


def test_the_best_of_several_are_kept_best_first(node: Node) -> None:
    ranked = prefer_seeds(node)
    before = len(node.http.get("/images", params={"limit": 100}).json()["items"])
    read = generate(node.http, best_of=5, num_images_per_prompt=2)
    assert [image["seed"] for image in read["images"]] == ranked[:2]
    assert read["images"][0]["clip_score"] > read["images"][1]["clip_score"]
    assert all(image["label_probabilities"] is None for image in read["images"])
    assert (read["parameters"]["best_of"], read["parameters"]["num_images_per_prompt"]) == (5, 2)
    assert len(node.http.get("/images", params={"limit": 100}).json()["items"]) == before + 2
    assert read == node.http.get(f"/generations/{read['id']}").json()
    best = read["images"][0]
    alone = generate(node.http, seed=best["seed"])["images"][0]
    assert best["sha256"] == alone["sha256"], "a candidate is the image of its seed"
    lineage = node.http.get(f"/images/{best['id']}/metadata").json()["lineage"]
    assert lineage["best_of"] == 5


def test_a_job_keeps_the_best_and_their_files_alone(node: Node) -> None:
    ranked = prefer_seeds(node)
    files = {path for path in (node.settings.data_dir / "images").rglob("*") if path.is_file()}
    body = {**FOX, "best_of": 5, "num_images_per_prompt": 2, "grid": True}
    job = node.http.post("/generate", json=body, headers=ASYNC).json()
    assert (job["progress"]["total"], job["spec"]["best_of"], job["spec"]["grid"]) == (5, 5, True)
    read = node.http.get(f"/generations/{work(node, job['id'])['generation_id']}").json()
    assert [image["seed"] for image in read["images"]] == ranked[:2]
    left = {path for path in (node.settings.data_dir / "images").rglob("*") if path.is_file()}
    assert len(left - files) == 2
    assert read["grid"]["url"].endswith("/grid.png")


def test_events_count_candidates(http: httpx.Client) -> None:
    answer = http.post("/generate/events", json={**FOX, "best_of": 3})
    assert '"num_images":3' in answer.text


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"best_of": 1, "num_images_per_prompt": 2}, "#/best_of", "best_of_too_small"),
        ({"best_of": 17}, "#/best_of", None),
        ({"best_of": 2.5}, "#/best_of", None),
        ({"best_of": 4, "seed": 2**53 - 2}, "#/seed", "seed_too_large"),
        ({"grid": "yes"}, "#/grid", None),
        ({"prompt_syntax": "fancy"}, "#/prompt_syntax", None),
        ({"clip_skip": 0}, "#/clip_skip", None),
    ],
)
def test_what_cannot_be_is_refused_at_its_field(
    http: httpx.Client, changes: dict[str, Any], pointer: str, code: str | None
) -> None:
    answer = http.post("/generate", json={**FOX, **changes})
    assert answer.status_code == 422, answer.text
    [error] = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert code is None or error["code"] == code


def test_candidates_count_as_work(http: httpx.Client) -> None:
    fine = {"num_inference_steps": 150, "width": 192, "height": 192}
    assert http.post("/generate", json={**FOX, **fine, "best_of": 16}).status_code == 200
    limits = http.get("/capabilities").json()["limits"]
    assert limits["num_images_per_prompt"] >= 16


def test_a_sheet_has_all_images(http: httpx.Client) -> None:
    read = generate(http, num_images_per_prompt=3, grid=True, response_format="b64_json", width=96)
    grid = read["grid"]
    assert (grid["width"], grid["height"]) == (192, 128)
    fetched = http.get(grid["url"])
    assert (fetched.status_code, fetched.headers["content-type"]) == (200, "image/png")
    assert fetched.content == base64.b64decode(grid["b64_json"])
    with (
        Image.open(io.BytesIO(fetched.content)) as sheet,
        Image.open(io.BytesIO(http.get(read["images"][2]["url"]).content)) as third,
    ):
        assert sheet.size == (192, 128)
        assert sheet.crop((0, 64, 96, 128)).tobytes() == third.convert("RGB").tobytes()
    assert generate(http)["grid"] is None
    assert http.get("/generations/0190c0de-0000-7000-8000-000000000000/grid.png").status_code == 404


def test_how_prompts_are_read_is_recorded(http: httpx.Client) -> None:
    read = generate(http, prompt="a (red:1.3) fox", prompt_syntax="weighted", clip_skip=1)
    assert (read["parameters"]["prompt_syntax"], read["parameters"]["clip_skip"]) == ("weighted", 1)
    lineage = http.get(f"/images/{read['images'][0]['id']}/metadata").json()["lineage"]
    assert (lineage["prompt_syntax"], lineage["clip_skip"]) == ("weighted", 1)
    plain = generate(http)["images"][0]
    lineage = http.get(f"/images/{plain['id']}/metadata").json()["lineage"]
    assert "prompt_syntax" not in lineage, "older files can be made again byte by byte"


def test_a_generation_is_repeated_with_other_settings(http: httpx.Client) -> None:
    first = generate(http, num_images_per_prompt=2, guidance_scale=3.0, timesteps=[900, 500], num_inference_steps=2)
    same = http.post(f"/generations/{first['id']}/repeat", json={})
    assert (same.status_code, same.headers["location"]) == (201, f"/generations/{same.json()['id']}")
    assert [image["sha256"] for image in same.json()["images"]] == [image["sha256"] for image in first["images"]]
    changes = {"num_inference_steps": 5, "scheduler": "euler", "width": 96, "speed": None}
    better = http.post(f"/generations/{first['id']}/repeat", json=changes).json()
    kept = {"seed": 42, "prompt": "a red fox", "guidance_scale": 3.0, "num_images_per_prompt": 2, "timesteps": None}
    assert {**kept, **changes, "speed": "exact"}.items() <= better["parameters"].items()
    again = http.post(f"/generations/{better['id']}/repeat", json={"timesteps": [800, 1], "seed": 7}).json()
    assert {"num_inference_steps": 2, "timesteps": [800, 1], "seed": 7}.items() <= again["parameters"].items()
    assert len(http.get("/generations").json()["items"]) == 4


def test_a_generation_is_drawn_larger_from_its_own_image(http: httpx.Client) -> None:
    first = generate(http, width=64, height=64, num_inference_steps=4)
    own = first["images"][0]["id"]
    larger = http.post(f"/generations/{first['id']}/repeat", json={"width": 96, "height": 96, "strength": 0.5}).json()
    used = larger["parameters"]
    assert (used["init_image"]["image_id"], used["strength"], used["width"], used["seed"]) == (own, 0.5, 96, 42)
    again = http.post(f"/generations/{larger['id']}/repeat", json={"num_inference_steps": 8}).json()["parameters"]
    assert (again["init_image"], again["strength"]) == (used["init_image"], 0.5)
    several = generate(http, num_images_per_prompt=2, num_inference_steps=2)
    refused = http.post(f"/generations/{several['id']}/repeat", json={"strength": 0.5})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "#/init_image")


def test_a_picture_that_came_with_the_request_is_sent_again(http: httpx.Client) -> None:
    picture = {"image_b64": SAMPLE_PNG}
    first = generate(http, init_image=picture, strength=0.5, num_inference_steps=4)
    refused = http.post(f"/generations/{first['id']}/repeat", json={"seed": 3})
    assert (refused.status_code, refused.json()["code"]) == (422, "init_image_missing")
    sent = http.post(f"/generations/{first['id']}/repeat", json={"init_image": picture, "strength": 0.5})
    assert sent.json()["images"][0]["sha256"] == first["images"][0]["sha256"]


def test_a_repeat_may_be_a_job_and_a_cancelled_job_keeps_its_seed(node: Node) -> None:
    first = generate(node.http, seed=None)
    accepted = node.http.post(f"/generations/{first['id']}/repeat", json={"num_inference_steps": 3}, headers=ASYNC)
    job = accepted.json()
    assert (accepted.status_code, accepted.headers["location"]) == (202, f"/jobs/{job['id']}")
    assert job["spec"]["seed"] == first["parameters"]["seed"]
    cancelled = node.http.post(f"/jobs/{job['id']}/cancel").json()
    assert (cancelled["status"], cancelled["spec"]["seed"]) == ("cancelled", first["parameters"]["seed"])
    retried = node.http.post(f"/jobs/{job['id']}/retry").json()
    assert retried["spec"] == job["spec"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"seed": -1}, 422),
        ({"steps": 3}, 422),
        ({"width": 1024}, 422),
        ({"best_of": 1, "num_images_per_prompt": 2}, 422),
    ],
)
def test_bad_overrides_are_refused(http: httpx.Client, changes: dict[str, Any], status: int) -> None:
    first = generate(http)
    assert http.post(f"/generations/{first['id']}/repeat", json=changes).status_code == status
    unknown = http.post("/generations/0190c0de-0000-7000-8000-000000000000/repeat", json={})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
