"""POST /generate with an initial image and a mask: what is drawn, stored and told, and what is refused."""

import base64
import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select, update

from app.access.caller import Scope
from app.db.base import utc_now
from app.db.picture_tables import InitImage
from app.db.session import Database
from app.errors import Conflict
from app.image_spec import ImageSpec
from app.jobs.handler import JobHandler
from app.node.client import NodeClient
from app.services.generations.job import GenerateJob
from app.services.generations.pictures import KEPT
from app.storage.image_formats import read_parameters, read_settings
from app.storage.layout import DataFolder
from testing.api_keys import new_key
from testing.fake_jobs import run_job
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve

SIDE = 64
FOX: dict[str, Any] = {"prompt": "a red fox", "num_inference_steps": 10, "seed": 42}


def png(pixels: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, options.pop("format", "png"), **options)
    return buffer.getvalue()


def picture(seed: int = 0, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def left_half(side: int = SIDE) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[:, : side // 2] = 255
    return mask


def b64(data: bytes) -> dict[str, str]:
    return {"image_b64": base64.b64encode(data).decode()}


def generate(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = http.post("/generate", json={**FOX, **fields})
    assert answer.status_code == 200, answer.text
    read: dict[str, Any] = answer.json()
    return read


def pixels_of(http: httpx.Client, read: dict[str, Any]) -> np.ndarray:
    data = http.get(read["images"][0]["url"]).content
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


INIT = b64(png(picture()))


@pytest.fixture(scope="module")
def shared_http(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[httpx.Client]:
    """One node for all requests that leave nothing behind."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copyfile(sqlite_template, folder / "foxhound.db")
    with serve(make_settings(folder / "data", f"sqlite:///{folder}/foxhound.db"), FakeModels()) as node:
        yield node.http


def test_an_image_is_made_from_a_picture_and_tells_what_of(http: httpx.Client) -> None:
    read = generate(http, init_image=INIT, strength=0.25)
    parameters = read["parameters"]
    expected = hashlib.sha256(f"{SIDE}x{SIDE}:".encode() + picture().tobytes()).hexdigest()
    assert parameters["init_image"] == {"sha256": expected, "image_id": None}
    assert (parameters["strength"], parameters["mask"]) == (0.25, None)
    assert np.abs(pixels_of(http, read).astype(int) - picture()).max() <= 0.25 * 255 + 1

    url = read["images"][0]["url"]
    data = http.get(url).content
    settings = read_settings(data)
    assert settings is not None
    assert ImageSpec.from_json(settings).to_json() == {
        name: settings[name] for name in ImageSpec.from_json(settings).to_json()
    }
    assert settings["init_image"]["sha256"] == expected
    assert "Denoising strength: 0.25" in str(read_parameters(data))
    lineage = http.get(f"{url}/metadata").json()["lineage"]
    assert (lineage["strength"], lineage["init_image"]["sha256"]) == (0.25, expected)
    assert http.get(f"/generations/{read['id']}").json() == read


def test_the_default_strength_is_three_quarters_and_without_a_picture_there_is_none(http: httpx.Client) -> None:
    assert generate(http, init_image=INIT)["parameters"]["strength"] == 0.75
    plain = generate(http)
    assert plain["parameters"]["strength"] is None
    data = http.get(plain["images"][0]["url"]).content
    assert "init_image" not in (read_settings(data) or {})
    assert "Denoising" not in str(read_parameters(data))


def test_the_same_request_gives_the_same_bytes_from_base64_a_stored_image_and_a_form(http: httpx.Client) -> None:
    stored = generate(http)["images"][0]
    file = http.get(stored["url"]).content
    mask = png(left_half())
    by_id, again, by_b64 = (
        generate(http, init_image=source, mask=b64(mask), strength=0.5, mask_blur=2, mask_invert=True)
        for source in ({"image_id": stored["id"]}, {"image_id": stored["id"]}, b64(file))
    )
    assert by_id["images"][0]["sha256"] == again["images"][0]["sha256"]
    assert by_id["parameters"]["init_image"]["image_id"] == stored["id"]
    fields = {"strength": "0.5", "mask_blur": "2", "mask_invert": "true"}
    form = http.post(
        "/generate",
        data={"prompt": FOX["prompt"], "num_inference_steps": "10", "seed": "42", **fields},
        files={"init_image": ("fox.png", file), "mask": ("mask.png", mask)},
    )
    assert form.status_code == 200, form.text
    assert form.json()["images"][0]["sha256"] == by_b64["images"][0]["sha256"]
    assert form.json()["parameters"] == by_b64["parameters"]
    for one in (by_id, by_b64):  # they differ in the id that the file names, not in pixels
        assert pixels_of(http, one).tobytes() == pixels_of(http, by_id).tobytes()


def test_the_parameters_of_an_answer_are_a_request_for_the_same_image(http: httpx.Client) -> None:
    stored = generate(http)["images"][0]["id"]
    mask = generate(http, prompt="a dog")["images"][0]["id"]
    first = generate(http, init_image={"image_id": stored}, mask={"image_id": mask}, mask_blur=1.5)
    again = http.post("/generate", json=first["parameters"])
    assert again.status_code == 200, again.text
    assert again.json()["images"][0]["sha256"] == first["images"][0]["sha256"]
    other_size = http.post("/generate", json={**first["parameters"], "width": 96})
    assert (other_size.status_code, other_size.json()["code"]) == (422, "image_differs")
    assert other_size.json()["errors"][0]["pointer"] == "#/init_image/sha256"


def test_only_what_is_white_in_the_mask_is_repainted_or_black_if_inverted(http: httpx.Client) -> None:
    half = SIDE // 2
    white = pixels_of(http, generate(http, init_image=INIT, mask=b64(png(left_half())), strength=1.0))
    black = pixels_of(http, generate(http, init_image=INIT, mask=b64(png(left_half())), strength=1.0, mask_invert=True))
    assert (white[:, half:] == picture()[:, half:]).all()
    assert (white[:, :half] != picture()[:, :half]).any()
    assert (black[:, :half] == picture()[:, :half]).all()
    assert (black[:, half:] != picture()[:, half:]).any()


def test_pictures_of_another_size_are_resized_with_their_masks_and_their_colours_converted(http: httpx.Client) -> None:
    flat = np.full((100, 50, 4), (200, 100, 50, 255), np.uint8)
    mask = np.zeros((100, 50), np.uint8)
    mask[:50] = 255
    read = generate(http, init_image=b64(png(flat)), mask=b64(png(mask)), strength=1.0, width=64, height=72)
    pixels = pixels_of(http, read)
    assert pixels.shape == (72, 64, 3)
    assert (pixels[40:] == (200, 100, 50)).all()
    assert (pixels[:30] != (200, 100, 50)).any()

    deep = np.full((SIDE, SIDE), 40_000, np.uint16)
    grey = pixels_of(http, generate(http, init_image=b64(png(deep)), mask=b64(png(left_half()))))
    assert (grey[:, SIDE // 2 :] == round(40_000 / 257)).all()


def test_events_and_image_bytes_are_answered_too(http: httpx.Client) -> None:
    body = {**FOX, "init_image": INIT, "strength": 0.4, "scheduler": "ddim"}
    expected = generate(http, init_image=INIT, strength=0.4, scheduler="ddim")
    image = http.post("/generate/image", json=body)
    assert hashlib.sha256(image.content).hexdigest() == expected["images"][0]["sha256"]
    events = http.post("/generate/events", json=body).text
    datas = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: ")]
    assert {event["steps"] for event in datas if event["kind"] == "progress"} == {4}, "the steps that are taken"
    assert datas[-1]["images"][0]["sha256"] == expected["images"][0]["sha256"]


@pytest.fixture
def worker(node: Node) -> Iterator[tuple[Database, JobHandler]]:
    db = Database(node.settings.resolved_database_url)
    client = NodeClient(node.settings.engine_socket)
    yield db, GenerateJob(db, DataFolder(node.settings.data_dir), client)
    client.close()
    db.close()


def kept(db: Database) -> list[tuple[str, str]]:
    with db.snapshot() as session:
        return [(row.job_id, row.field) for row in session.scalars(select(InitImage).order_by(InitImage.field))]


def test_a_job_keeps_its_pictures_until_it_has_used_them(
    http: httpx.Client, worker: tuple[Database, JobHandler]
) -> None:
    db, handler = worker
    stored = generate(http)
    source = {"image_id": stored["images"][0]["id"]}
    body = {**FOX, "init_image": source, "mask": b64(png(left_half())), "strength": 0.5, "num_images_per_prompt": 2}
    expected = generate(http, **body)
    accepted = http.post("/generate", json=body, headers={"Prefer": "respond-async", "Idempotency-Key": "one"})
    assert accepted.status_code == 202, accepted.text
    job = accepted.json()
    assert job["spec"]["init_image"]["image_id"] == source["image_id"]
    assert kept(db) == [(job["id"], "init_image"), (job["id"], "mask")]
    again = http.post("/generate", json=body, headers={"Prefer": "respond-async", "Idempotency-Key": "one"})
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (job, "true")
    assert http.delete(f"/generations/{stored['id']}").status_code == 204, "the stored image is gone"

    result = run_job(db, job["id"], handler)
    assert result is not None
    made = http.get(f"/generations/{result['generation_id']}").json()
    assert [image["sha256"] for image in made["images"]] == [image["sha256"] for image in expected["images"]]
    assert made["parameters"] == expected["parameters"]
    assert kept(db) == []


def test_a_job_that_is_retried_uses_the_pictures_of_the_first(
    http: httpx.Client, worker: tuple[Database, JobHandler]
) -> None:
    db, handler = worker
    body = {**FOX, "init_image": INIT, "strength": 0.5}
    first = http.post("/generate", json=body, headers={"Prefer": "respond-async"}).json()
    assert http.post(f"/jobs/{first['id']}/cancel").json()["status"] == "cancelled"
    retry = http.post(f"/jobs/{first['id']}/retry").json()
    result = run_job(db, retry["id"], handler)
    assert result is not None
    made = http.get(f"/generations/{result['generation_id']}").json()
    assert made["images"][0]["sha256"] == generate(http, **body)["images"][0]["sha256"]


def test_a_form_is_accepted_as_a_job_and_its_key_is_that_of_the_same_json(http: httpx.Client) -> None:
    headers = {"Prefer": "respond-async", "Idempotency-Key": "one"}
    data = {"prompt": "a red fox", "num_inference_steps": "10", "seed": "42", "strength": "0.5"}
    form = http.post("/generate", data=data, files={"init_image": ("a.png", png(picture()))}, headers=headers)
    assert form.status_code == 202, form.text
    body = http.post("/generate", json={**FOX, "strength": 0.5, "init_image": INIT}, headers=headers)
    assert (body.json(), body.headers["Idempotency-Replayed"]) == (form.json(), "true")
    other = http.post("/generate", json={**FOX, "strength": 0.5, "init_image": b64(png(picture(1)))}, headers=headers)
    assert other.status_code == 422


def test_pictures_of_jobs_that_ended_long_ago_are_removed_and_those_of_others_stay(
    http: httpx.Client, worker: tuple[Database, JobHandler]
) -> None:
    db, handler = worker
    body = {**FOX, "init_image": INIT, "strength": 0.5}
    ended, waiting = (
        http.post("/generate", json=body, headers={"Prefer": "respond-async"}).json()["id"] for _ in range(2)
    )
    http.post(f"/jobs/{ended}/cancel")
    with db.transaction() as session:
        session.execute(update(InitImage).values(created_at=utc_now() - KEPT - timedelta(minutes=1)))
    new = http.post("/generate", json=body, headers={"Prefer": "respond-async"}).json()["id"]
    assert {job_id for job_id, _ in kept(db)} == {waiting, new}
    retry = http.post(f"/jobs/{ended}/retry").json()["id"]
    with pytest.raises(Conflict, match="not kept any more"):
        run_job(db, retry, handler)


def test_a_picture_of_another_caller_is_not_found(tmp_path: Path, sqlite_template: Path) -> None:
    database = f"sqlite:///{tmp_path}/foxhound.db"
    shutil.copyfile(sqlite_template, tmp_path / "foxhound.db")
    keys = [new_key(database, name, Scope.READ, Scope.GENERATE).key for name in ("alice", "bob")]
    with serve(make_settings(tmp_path / "data", database, read_own=True), FakeModels()) as node:
        alice, bob = ({"Authorization": f"Bearer {key}"} for key in keys)
        made = node.http.post("/generate", json=FOX, headers=alice).json()
        body = {**FOX, "init_image": {"image_id": made["images"][0]["id"]}}
        assert node.http.post("/generate", json=body, headers=alice).status_code == 200
        refused = node.http.post("/generate", json=body, headers=bob)
        assert (refused.status_code, refused.json()["code"]) == (422, "image_not_found")


def test_capabilities_tell_of_it(shared_http: httpx.Client) -> None:
    assert shared_http.get("/capabilities").json()["modes"] == ["text_to_image", "image_to_image", "inpainting"]


FRAMES = [Image.fromarray(picture(seed)) for seed in (1, 2)]
SOUND = png(picture())


@pytest.mark.parametrize(
    ("fields", "status", "code", "pointer"),
    [
        ({"mask": INIT}, 422, "init_image_missing", "#/mask"),
        ({"strength": 0.5}, 422, "init_image_missing", "#/strength"),
        ({"init_image": INIT, "mask_blur": 3}, 422, "init_image_missing", "#/mask_blur"),
        ({"init_image": INIT, "mask_invert": True}, 422, "init_image_missing", "#/mask_invert"),
        ({"init_image": INIT, "strength": 0}, 422, "too_small", "#/strength"),
        ({"init_image": INIT, "strength": 1.01}, 422, "too_large", "#/strength"),
        ({"init_image": INIT, "strength": "0.5"}, 422, "float_type", "#/strength"),
        ({"init_image": INIT, "strength": 0.09}, 422, "strength_too_low", "#/strength"),
        ({"init_image": INIT, "mask": INIT, "mask_blur": 65}, 422, "too_large", "#/mask_blur"),
        ({"init_image": INIT, "mask": b64(png(left_half(32)))}, 422, "mask_size_differs", "#/mask"),
        ({"init_image": {}}, 422, "one_image_source", "#/init_image"),
        ({"init_image": {**INIT, "image_id": "x"}}, 422, "one_image_source", "#/init_image"),
        ({"init_image": {"image_id": "no-such"}}, 422, "image_not_found", "#/init_image/image_id"),
        ({"init_image": INIT, "mask": {"image_id": "no-such"}}, 422, "image_not_found", "#/mask/image_id"),
        ({"init_image": {"image_b64": "?"}}, 422, "bad_base64", "#/init_image/image_b64"),
        ({"init_image": b64(b"GIF89a")}, 415, "unsupported_image", "#/init_image"),
        ({"init_image": b64(SOUND[:200])}, 422, "corrupt_image", "#/init_image"),
        ({"init_image": INIT, "mask": b64(SOUND[:200])}, 422, "corrupt_image", "#/mask"),
        (
            {"init_image": b64(png(FRAMES[0], save_all=True, append_images=FRAMES[1:]))},
            422,
            "animated_image",
            "#/init_image",
        ),
        (
            {"init_image": b64(png(FRAMES[0], format="webp", save_all=True, append_images=FRAMES[1:]))},
            422,
            "animated_image",
            "#/init_image",
        ),
        ({"init_image": b64(png(Image.new("1", (8_000, 6_000))))}, 413, "too_many_pixels", "#/init_image"),
        ({"init_image": b64(png(Image.new("1", (4_000, 2))))}, 422, "too_elongated", "#/init_image"),
        ({"init_image": INIT, "width": 60}, 422, "multiple_of", "#/width"),
    ],
)
def test_bad_input_is_refused_with_its_field(
    shared_http: httpx.Client, fields: dict[str, Any], status: int, code: str, pointer: str
) -> None:
    answer = shared_http.post("/generate", json={**FOX, **fields})
    problem = answer.json()
    assert answer.status_code == status, problem
    assert [(fault["code"], fault["pointer"]) for fault in problem["errors"]] == [(code, pointer)]


@pytest.mark.parametrize(
    ("data", "files", "code", "pointer"),
    [
        ({}, {"picture": ("a.png", SOUND)}, "unknown_field", "#/picture"),
        ({"init_image": "text"}, {"mask": ("a.png", SOUND)}, "file_expected", "#/init_image"),
        ({"strength": "much"}, {"init_image": ("a.png", SOUND)}, "float_type", "#/strength"),
        ({"prompt": ""}, {"init_image": ("a.png", SOUND)}, "too_short", "#/prompt"),
        ({}, {"mask": ("a.png", SOUND)}, "init_image_missing", "#/mask"),
        ({}, [("init_image", ("a.png", SOUND)), ("init_image", ("b.png", SOUND))], "repeated_field", "#/init_image"),
    ],
)
def test_a_bad_form_is_refused_with_its_field(
    shared_http: httpx.Client, data: dict[str, str], files: Any, code: str, pointer: str
) -> None:
    answer = shared_http.post("/generate", data={"prompt": "a fox", **data}, files=files)
    assert answer.status_code == 422, answer.text
    fault = answer.json()["errors"][0]
    assert (fault["code"], fault["pointer"]) == (code, pointer)


@pytest.mark.parametrize(
    ("labels", "interval"), [(["fox", "dog"], None), (["fox"], [0.0, 0.5])], ids=["labels", "interval"]
)
def test_a_form_takes_every_field_of_the_json_body(shared_http: httpx.Client, labels: list[str], interval: Any) -> None:
    body = {**FOX, "labels": labels, "guidance_interval": interval, "init_image": INIT, "guidance_scale": 3.5}
    by_json = shared_http.post("/generate", json=body).json()
    fields = {name: value for name, value in body.items() if name not in ("init_image", "labels")}
    data: dict[str, Any] = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()
    }
    form = shared_http.post("/generate", data={**data, "labels": labels}, files={"init_image": ("a.png", SOUND)})
    assert form.status_code == 200, form.text
    assert form.json()["parameters"] == by_json["parameters"]
    assert form.json()["images"][0]["sha256"] == by_json["images"][0]["sha256"]


def test_large_pictures_are_taken_and_larger_ones_refused(shared_http: httpx.Client) -> None:
    noise = png(picture(3, 1_500), compress_level=0)
    assert len(noise) > 6_000_000
    answer = shared_http.post("/generate", json={**FOX, "init_image": b64(noise)})
    assert answer.status_code == 200, answer.text
    too_large = shared_http.post(
        "/generate", data={"prompt": "a fox"}, files={"init_image": ("a.png", SOUND + bytes(20_000_000))}
    )
    assert (too_large.status_code, too_large.json()["code"]) == (413, "image_too_large")
