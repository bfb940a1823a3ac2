"""Datasets whose training images begin with stored images: what is drawn, kept and told, and what is refused."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import func, select

from app.db.models import Image
from app.db.picture_tables import DatasetShot
from app.image_spec import ImageSpec
from app.schemas.recipes import DEFAULT_SHOT_STRENGTH
from app.services.datasets.repair_job import RepairJob
from app.storage.image_formats import pixels_sha256, read_settings
from app.storage.layout import DataFolder
from testing.api_keys import client_of, new_key
from testing.fake_models import FakeModels
from testing.node import make_settings, serve
from testing.uploads import CLASSES, create_empty, picture, upload
from testing.workbench import CLASSES as CLASSES_WITH_PROMPTS
from testing.workbench import RECIPE, Workbench

SIDE = 64


def store(bench: Workbench, num: int = 1, name: str = "real", split: str = "train", first: int = 0) -> list[str]:
    """Upload pictures of noise to a dataset of their own, and return the ids of the images."""
    read = create_empty(bench.http, name)
    files = [picture(first + seed, size=(96, 48)) for seed in range(num)]
    answer = upload(bench.http, read["id"], files, split=split)
    assert answer.status_code == 201, answer.text
    return [file["image_id"] for file in answer.json()["files"]]


def recipe(shots: list[str], dogs: list[str] | None = None, **generation: Any) -> dict[str, Any]:
    """Return a recipe whose foxes, and perhaps dogs, have shots."""
    classes: list[dict[str, Any]] = [{**entry} for entry in CLASSES_WITH_PROMPTS]
    classes[0]["from_images"] = shots
    if dogs is not None:
        classes[1]["from_images"] = dogs
    settings = {"num_inference_steps": 10, "guidance_scale": 1.0, "scheduler": "ddim", "strength": 0.5, **generation}
    return {**RECIPE, "classes": classes, "generation": settings}


def post(bench: Workbench, body: dict[str, Any], path: str = "/datasets") -> tuple[int, dict[str, Any]]:
    answer = bench.http.post(path, json={"name": "d", "train_per_class": 4, "test_per_class": 0, **body})
    return answer.status_code, answer.json()


def shots_kept(bench: Workbench) -> int:
    with bench.db.snapshot() as session:
        return session.scalar(select(func.count()).select_from(DatasetShot)) or 0


def drawn(bench: Workbench, dataset_id: str, split: str, class_index: int) -> list[Image]:
    with bench.db.snapshot() as session:
        rows = session.query(Image).filter_by(dataset_id=dataset_id, split=split, class_index=class_index)
        return rows.order_by(Image.position).all()


def test_training_images_of_a_class_begin_with_its_shots_and_no_other_image_does(bench: Workbench) -> None:
    shots = store(bench, 3)
    body = recipe(shots, strength={"min": 0.4, "max": 0.6})
    read = bench.make("d", train_per_class=6, validation_per_class=1, test_per_class=2, **body)
    assert (read["status"], read["generation"]["strength"]) == ("ready", {"min": 0.4, "max": 0.6})
    assert [entry["num_shots"] for entry in read["classes"]] == [3, 0]
    foxes = drawn(bench, read["id"], "train", 0)
    used = [image.lineage["init_image"]["image_id"] for image in foxes]
    assert sorted(used[:3]) == sorted(used[3:]) == sorted(shots)
    assert {image.lineage["strength"] for image in foxes} <= {0.4, 0.45, 0.5, 0.55, 0.6}
    others = [drawn(bench, read["id"], *place) for place in (("validation", 0), ("test", 0), ("train", 1), ("test", 1))]
    assert [len(images) for images in others] == [1, 2, 6, 2]
    assert not any("init_image" in image.lineage for images in others for image in images)

    stored = bench.http.get(f"/images/{used[0]}").content
    resized = Picture.open(io.BytesIO(stored)).resize((SIDE, SIDE), Picture.Resampling.LANCZOS)
    lineage = bench.http.get(f"/images/{foxes[0].id}/metadata").json()["lineage"]
    assert lineage["init_image"] == {"sha256": pixels_sha256(resized), "image_id": used[0]}
    data = bench.http.get(f"/images/{foxes[0].id}").content
    settings = read_settings(data)
    assert settings is not None
    assert ImageSpec.from_json(settings).init_image == ImageSpec.from_json(lineage).init_image
    pixels, shot = (np.asarray(image).astype(int) for image in (Picture.open(io.BytesIO(data)), resized))
    assert np.abs(pixels - shot).max() <= lineage["strength"] * 255 + 1


def test_the_shots_stay_when_their_images_are_deleted_and_repair_and_extension_draw_of_them(bench: Workbench) -> None:
    body = recipe(store(bench, 3))
    whole = bench.make("whole", train_per_class=5, **body)
    parts = bench.make("parts", train_per_class=2, **body)
    assert shots_kept(bench) == 6
    [real] = [one for one in bench.http.get("/datasets").json()["items"] if one["name"] == "real"]
    assert bench.http.delete(f"/datasets/{real['id']}").status_code == 204
    bench.work(bench.extend(parts, train_per_class=3)["job_id"])
    files = bench.files("whole")
    assert bench.files("parts") == files

    for image in drawn(bench, whole["id"], "train", 0):
        (bench.data_dir / image.path).unlink()
    job = bench.http.post(f"/datasets/{whole['id']}/repair").json()
    bench.handler = RepairJob(bench.db, DataFolder(bench.data_dir), bench.client)
    assert bench.work(job["id"])["num_restored"] == 5
    assert bench.files("whole") == files

    assert bench.http.delete(f"/datasets/{whole['id']}").status_code == 204
    assert shots_kept(bench) == 3


def test_a_recipe_can_be_posted_again_and_has_the_default_strength(bench: Workbench) -> None:
    shots = store(bench, 2)
    body = recipe(shots)
    body["generation"].pop("strength")
    made = bench.make("first", train_per_class=2, **body)
    told = bench.http.get(f"/datasets/{made['id']}/recipe").json()
    assert [entry["from_images"] for entry in told["classes"]] == [shots, []]
    assert told["generation"]["strength"] == DEFAULT_SHOT_STRENGTH
    again = bench.http.post("/datasets", json={**told, "name": "second"})
    assert again.status_code == 202, again.text
    bench.work(again.json()["job_id"])
    assert bench.files("second") == bench.files("first")

    plain = bench.make("plain", train_per_class=1)
    told = bench.http.get(f"/datasets/{plain['id']}/recipe").json()
    assert told["generation"]["strength"] is None
    assert bench.http.post("/datasets", json={**told, "name": "plain-again"}).status_code == 202


def test_a_dry_run_counts_the_steps_that_shots_leave_out_and_stores_nothing(bench: Workbench) -> None:
    shots = store(bench, 2)
    body = recipe(shots, strength={"min": 0.25, "max": 0.5})
    status, plan = post(bench, {**body, "test_per_class": 1}, "/datasets?dry_run=true")
    assert status == 200, plan
    # Of 10 steps 2, 3, 3, 4, 4 or 5: 21 / 6 for each of four foxes; all ten for four dogs and two test images.
    assert plan["row_steps"] == round(4 * 21 / 6 + 6 * 10)
    foxes = [sample for sample in plan["samples"] if sample["class_name"] == "fox"]
    assert {sample["from_image"] for sample in foxes} == set(shots)
    assert all(0.25 <= sample["strength"] <= 0.5 for sample in foxes)
    assert all(s["from_image"] is s["strength"] is None for s in plan["samples"] if s["class_name"] == "dog")
    assert (shots_kept(bench), len(bench.http.get("/datasets").json()["items"])) == (0, 1)

    read = bench.make("d", train_per_class=2, **recipe(shots))
    more = bench.http.post(f"/datasets/{read['id']}/extend?dry_run=true", json={"train_per_class": 2}).json()
    assert more["row_steps"] == 2 * 5 + 2 * 10


def test_a_train_jobs_dataset_has_shots_too(bench: Workbench) -> None:
    shots = store(bench, 1)
    dataset = {"name": "d", "train_per_class": 2, "test_per_class": 0, **recipe(shots)}
    answer = bench.http.post("/train-jobs", json={"dataset": dataset, "epochs": 1})
    assert (answer.status_code, shots_kept(bench)) == (202, 1), answer.text
    dataset["classes"][0]["from_images"] = ["gone"]
    problem = bench.http.post("/train-jobs", json={"dataset": {**dataset, "name": "e"}, "epochs": 1}).json()
    assert problem["errors"][0]["pointer"] == "#/dataset/classes/0/from_images/0"


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_shot_that_is_held_out_anywhere_is_refused(bench: Workbench, split: str) -> None:
    [held_out] = store(bench, 1, "held-out", split)
    [same] = store(bench, 1, "same-picture", "train")
    [fine] = store(bench, 1, "fine", "train", first=9)
    status, problem = post(bench, recipe([fine, held_out, same]))
    assert status == 422
    assert [(one["pointer"], one["code"]) for one in problem["errors"]] == [
        ("#/classes/0/from_images/1", "shot_held_out"),
        ("#/classes/0/from_images/2", "shot_held_out"),
    ]
    assert "validation or test" in problem["errors"][0]["detail"]
    assert shots_kept(bench) == 0


def test_what_cannot_be_a_shot_is_refused_at_its_field(bench: Workbench) -> None:
    one, two = store(bench, 2)
    by_field: list[tuple[dict[str, Any], str, str]] = [
        (recipe([one, "no-such-image"]), "#/classes/0/from_images/1", "image_not_found"),
        (recipe([one, one]), "#/classes/0/from_images/1", "duplicate_shots"),
        (recipe([one], [two, one]), "#/classes/1/from_images/1", "duplicate_shots"),
        (recipe([f"id-{k}" for k in range(101)]), "#/classes/0/from_images", "too_many"),
        (recipe([one], strength=0.05), "#/generation/strength", "strength_too_low"),
        (recipe([one], strength={"min": 0.05, "max": 1.0}), "#/generation/strength", "strength_too_low"),
        (recipe([one], strength=0.0), "#/generation/strength", "bad_strength"),
        (recipe([one], strength={"min": 0.5, "max": 0.4}), "#/generation/strength", "bad_strength"),
        (recipe([one], strength={"min": 0.51, "max": 0.6}), "#/generation/strength", "bad_strength"),
        (recipe([]), "#/generation/strength", "init_image_missing"),
    ]
    for body, pointer, code in by_field:
        status, problem = post(bench, body)
        faults = [(fault["pointer"], fault["code"]) for fault in problem.get("errors", [])]
        assert (status, faults) == (422, [(pointer, code)]), body["classes"]
    many = [{"name": f"c{k}", "prompts": ["x"], "from_images": [f"{k}-{n}" for n in range(100)]} for k in range(6)]
    status, problem = post(bench, {"classes": many, "train_per_class": 1})
    assert (status, problem["code"]) == (422, "too_many_images")
    assert "500" in problem["detail"]

    with bench.db.snapshot() as session:
        path = session.get_one(Image, two).path
    (bench.data_dir / path).write_bytes(b"damaged")
    for query in ("", "?dry_run=true"):
        status, problem = post(bench, recipe([one, two]), f"/datasets{query}")
        assert (status, problem["code"]) == (410, "image_file_damaged")
        assert problem["errors"][0]["pointer"] == "#/classes/0/from_images/1"
    assert shots_kept(bench) == 0


@pytest.fixture
def house(tmp_path: Path, database_url: str) -> Iterator[tuple[Any, Any]]:
    """Two clients of a node whose keys see their own objects."""
    alice, bob = new_key(database_url, "alice"), new_key(database_url, "bob")
    settings = make_settings(tmp_path / "data", database_url, read_own=True)
    with serve(settings, FakeModels()) as node, client_of(node, alice.key) as hers, client_of(node, bob.key) as his:
        yield hers, his


def test_a_caller_uses_images_that_he_sees_alone(house: tuple[Any, Any]) -> None:
    alice, bob = house
    dataset = create_empty(alice, "alices")
    files = upload(alice, dataset["id"], [picture(1)], class_name=CLASSES[0]).json()["files"]
    body = {"name": "d", "train_per_class": 1, "test_per_class": 0, **recipe([files[0]["image_id"]])}
    refused = bob.post("/datasets", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "image_not_found")
    assert alice.post("/datasets", json=body).status_code == 202
