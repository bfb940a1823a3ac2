"""Recipes and the filter over HTTP; the job runs here, against the node's own socket."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL.Image import Image as Picture
from torchvision.datasets import ImageFolder

from app.db.models import Image, Job
from app.db.session import Database
from app.image_spec import ImageSpec
from app.jobs.signals import JobCancelled
from app.node.client import NodeClient
from app.services.datasets.job import DatasetImages, DatasetJob
from app.services.datasets.recipes.clip_filter import MAX_SCORES
from app.services.datasets.recipes.seeds import image_seed
from app.services.inference.service import TEXTS_AT_ONCE
from app.storage.layout import DataFolder
from testing.fake_jobs import run_job
from testing.fake_models import BROKEN_PROMPT, FLAGGED_PROMPT
from testing.node import Node

VARIABLES = {"style": ["a photo of", "a sketch of"], "place": ["", "at night", "in snow"]}
CLASSES = [{"name": "fox", "prompts": ["{style} a fox {place}"]}, {"name": "dog", "prompts": ["{style} a dog {place}"]}]


@dataclass
class Desk:
    """A node, and the hands that do its dataset jobs when they are told to."""

    node: Node
    db: Database
    handler: DatasetJob

    @property
    def http(self) -> httpx.Client:
        return self.node.http

    @property
    def data_dir(self) -> Path:
        return self.node.settings.data_dir

    def make(self, **changes: object) -> dict:
        """Create a dataset, do its job, and return the dataset as it is then."""
        created = create(self.http, **changes)
        run_job(self.db, created["job_id"], self.handler)
        return self.http.get(f"/datasets/{created['id']}").json()

    def images(self, read: dict, **params: str) -> list[dict]:
        listed = self.http.get(f"/datasets/{read['id']}/images", params={"limit": 100, **params}).json()["items"]
        return [self.http.get(f"{image['url']}/metadata").json() for image in listed]

    def files(self, kind: str, name: str = "fox-dog") -> dict[str, bytes]:
        folder = self.data_dir / kind / name
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


@pytest.fixture
def desk(node: Node) -> Iterator[Desk]:
    db, client = Database(node.settings.resolved_database_url), NodeClient(node.settings.engine_socket)
    images = DatasetImages(db, DataFolder(node.settings.data_dir), client, chunk_size=5)
    yield Desk(node, db, DatasetJob(images))
    client.close()
    db.close()


def body(**changes: object) -> dict:
    fields: dict[str, Any] = {"name": "fox-dog", "seed": 7, "classes": CLASSES, "variables": VARIABLES}
    fields = {**fields, "generation": {}, "train_per_class": 6, "test_per_class": 3, **changes}
    return {**fields, "generation": {"num_inference_steps": 1, **fields["generation"]}}


def create(http: httpx.Client, **changes: object) -> dict:
    answer = http.post("/datasets", json=body(**changes))
    assert answer.status_code == 202, answer.text
    return answer.json()


def guided(scale: object) -> dict:
    return {"generation": {"guidance_scale": scale}}


def stepped(steps: object) -> dict:
    return {"generation": {"num_inference_steps": steps}}


def by_brightness(limit: float) -> Callable[[Picture, str], float]:
    """A CLIP that finds a fox in pictures brighter than the limit and a dog in others, whatever was asked for."""

    def score(image: Picture, text: str) -> float:
        is_fox = float(np.asarray(image)[:8, :8].mean()) > limit
        return 5.0 if ("fox" in text) == is_fox else 0.0

    return score


# About the mean of what the fake diffusion model draws, so that it parts its pictures in two halves.
MIDDLE = 89.5


def test_the_settled_recipe_is_shown_and_each_image_tells_what_was_drawn_for_it(desk: Desk) -> None:
    read = desk.make(generation={"guidance_scale": {"min": 1.0, "max": 3.0}})
    assert read["status"] == "ready"
    recipe = desk.http.get(f"/datasets/{read['id']}/recipe").json()
    assert (recipe["variables"], read["combine"], read["filter"], read["max_attempts"]) == (
        VARIABLES,
        "cartesian",
        None,
        3,
    )
    assert read["generation"]["guidance_scale"] == {"min": 1.0, "max": 3.0}
    assert [entry["label"] for entry in read["classes"]] == ["fox", "dog"]
    images = desk.images(read, **{"class": "fox", "split": "train"})
    prompts = [image["lineage"]["prompt"] for image in images]
    assert len(set(prompts)) == len(prompts) == 6
    assert len({image["lineage"]["guidance_scale"] for image in images}) > 1
    for image in images:
        lineage = image["lineage"]
        filled = lineage["template"].replace("{style}", lineage["variables"]["style"])
        assert filled.replace("{place}", lineage["variables"]["place"]).strip() == lineage["prompt"]
        assert [score["label"] for score in image["label_probabilities"]] == ["fox", "dog"]
        assert image["reason"] is None


def test_the_same_request_gives_the_same_files_in_chunks_of_any_size(desk: Desk) -> None:
    recipe = {"combine": "sampled", "generation": {"guidance_scale": {"min": 1.0, "max": 5.0}}, "filter": {}}
    desk.node.models.clip.score = by_brightness(MIDDLE)
    one = desk.make(**recipe)
    client = NodeClient(desk.node.settings.engine_socket)
    desk.handler = DatasetJob(DatasetImages(desk.db, DataFolder(desk.data_dir), client, chunk_size=2))
    other = desk.make(**recipe, name="again")
    client.close()
    assert one["num_rejected"] == other["num_rejected"] > 0
    for kind in ("datasets", "rejected"):
        assert desk.files(kind) == desk.files(kind, "again")


def test_a_rejected_image_is_replaced_and_can_be_looked_at(desk: Desk) -> None:
    desk.node.models.clip.score = by_brightness(MIDDLE)
    read = desk.make(filter={}, max_attempts=50)
    assert (read["status"], read["num_images"], read["missing"]) == ("ready", 18, [])
    assert read["filter"] == {"threshold": 0.5}
    kept, rejected = desk.images(read), desk.images(read, decision="rejected")
    assert len(kept) == 18
    assert len(rejected) == read["num_rejected"] > 0
    for image in [*kept, *rejected]:
        own = {score["label"]: score["probability"] for score in image["label_probabilities"]}[image["class_name"]]
        assert (own >= 0.5) == (image["decision"] == "kept")
        assert f"{own:.4f}" in image["reason"]
        assert desk.http.get(image["url"]).status_code == 200
    folder = desk.data_dir / "datasets" / "fox-dog"
    assert [len(ImageFolder(folder / split)) for split in ("train", "test")] == [12, 6]
    assert len(desk.files("datasets")) == 18
    assert len(desk.files("rejected")) == len(rejected)
    assert len(desk.http.get("/images?limit=100").json()["items"]) == 18


def test_attempts_are_taken_from_the_seed_sequence_in_order(desk: Desk) -> None:
    desk.node.models.clip.score = by_brightness(MIDDLE)
    read = desk.make(filter={}, max_attempts=50, train_per_class=4, test_per_class=0)
    seeds: dict[tuple, list] = {}
    for image in [*desk.images(read), *desk.images(read, decision="rejected")]:
        lineage = image["lineage"]
        row = (lineage["attempt"], lineage["seed"], image["decision"])
        with desk.db.snapshot() as session:
            position = session.get_one(Image, image["id"]).position
        seeds.setdefault((image["class_name"], position), []).append(row)
    for (name, position), rows in seeds.items():
        expected = [(k, image_seed(7, name, "train", position, k)) for k in range(len(rows))]
        assert [row[:2] for row in sorted(rows)] == expected
        assert [row[2] for row in sorted(rows)] == ["rejected"] * (len(rows) - 1) + ["kept"]


def test_where_attempts_run_out_the_dataset_says_which_places_are_missing_and_why(desk: Desk) -> None:
    desk.node.models.clip.score = lambda _image, text: 5.0 if "fox" in text else 0.0
    read = desk.make(filter={}, max_attempts=2, train_per_class=1, test_per_class=1)
    assert (read["status"], read["num_images"], read["num_rejected"]) == ("incomplete", 2, 4)
    why = {"num_rejected": 2, "num_flagged": 0, "num_failed": 0}
    assert read["missing"] == [
        {"class_name": "dog", "split": "train", "position": 0, **why},
        {"class_name": "dog", "split": "test", "position": 0, **why},
    ]
    assert "test/dog" not in {str(Path(name).parent) for name in desk.files("datasets")}


def test_flagged_and_failed_tries_are_told_apart_and_not_stored(desk: Desk) -> None:
    classes = [{"name": "a", "prompts": [FLAGGED_PROMPT]}, {"name": "b", "prompts": [BROKEN_PROMPT]}]
    read = desk.make(classes=classes, variables={}, train_per_class=1, test_per_class=0)
    told = [(place["num_rejected"], place["num_flagged"], place["num_failed"]) for place in read["missing"]]
    assert told == [(0, 3, 0), (0, 0, 3)]
    assert read["num_rejected"] == 0


def test_a_chunk_made_again_gives_the_same_files_and_clears_what_it_did_not_write(desk: Desk) -> None:
    """The first run dies before its record; meanwhile a score has moved over the threshold."""
    created = create(desk.http, filter={}, train_per_class=2, test_per_class=0)
    item = {"part": "images", "dataset_id": created["id"], "start": 0, "stop": 4}

    class Dies(Exception):
        pass

    class DyingRun:
        id, is_stopping, caller = created["job_id"], False, ""

        def check_cancelled(self) -> None: ...

        def transaction(self, name: str, fn: object) -> None:
            raise Dies

    with pytest.raises(Dies):
        desk.handler.run_chunk(DyingRun(), item)  # type: ignore[arg-type]
    assert len(desk.files("datasets")) + len(desk.files("rejected")) > 0
    desk.node.models.clip.score = by_brightness(MIDDLE)
    run_job(desk.db, created["job_id"], desk.handler)
    with desk.db.snapshot() as session:
        recorded = {image.path for image in session.query(Image)}
    found = {f"{kind}/fox-dog/{name}" for kind in ("datasets", "rejected") for name in desk.files(kind)}
    assert found == recorded


def test_a_cancelled_chunk_leaves_neither_kept_nor_rejected_files(desk: Desk) -> None:
    desk.node.models.clip.score = by_brightness(MIDDLE)
    created = create(desk.http, filter={})
    diffusion = desk.node.models.diffusion
    with pytest.raises(JobCancelled):
        run_job(desk.db, created["job_id"], desk.handler, lambda: diffusion.num_steps >= 12)
    with desk.db.snapshot() as session:
        recorded = {image.path for image in session.query(Image)}
    found = {f"{kind}/fox-dog/{name}" for kind in ("datasets", "rejected") for name in desk.files(kind)}
    assert found == recorded


def test_deleting_a_dataset_takes_its_rejected_images(desk: Desk) -> None:
    desk.node.models.clip.score = by_brightness(MIDDLE)
    read = desk.make(filter={}, max_attempts=50)
    assert desk.files("rejected")
    with desk.db.transaction() as session:
        session.get_one(Job, read["job_id"]).status = "succeeded"
    assert desk.http.delete(f"/datasets/{read['id']}").status_code == 204
    assert not desk.files("rejected")


def test_each_image_has_its_embedding_in_two_bytes_a_number(desk: Desk) -> None:
    desk.make(train_per_class=1, test_per_class=0)
    with desk.db.snapshot() as session:
        embeddings = [np.frombuffer(image.clip_embedding or b"", dtype="<f2") for image in session.query(Image)]
    assert [embedding.tolist() for embedding in embeddings] == [[0.5] * 4] * 2


def test_the_scores_of_many_long_labels_come_through(desk: Desk) -> None:
    labels = [f"{k}" + "é" * 190 for k in range(256)]
    sent = {"prompt": "a fox", "num_inference_steps": 1, "labels": labels}
    spec = desk.http.post("/generate", json={**sent, "seed": 1}).json()["parameters"]
    names = (
        "prompt",
        "negative_prompt",
        "guidance_scale",
        "num_inference_steps",
        "width",
        "height",
        "seed",
        "scheduler",
    )
    client = NodeClient(desk.node.settings.engine_socket)
    asked = {name: spec[name] for name in (*names, "output_format")}
    data, info = client.render(ImageSpec(**asked), labels=labels, background=True, keep_waiting=lambda: None)
    client.close()
    assert data.startswith(b"\x89PNG")
    assert [score["label"] for score in info.label_probabilities or []] == labels


def test_a_dry_run_tells_what_would_be_made_and_stores_nothing(desk: Desk) -> None:
    answer = desk.http.post("/datasets?dry_run=true", json=body(preset="diverse", name="planned"))
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert plan["num_images"] == 18
    assert plan["row_steps"] == 18 * 2  # fake models know no speed before their first step
    assert (plan["estimated_seconds"], plan["estimate_basis"]) == (None, "unknown")
    assert "no step was measured" in plan["estimate"]
    assert {sample["class_name"] for sample in plan["samples"]} == {"fox", "dog"}
    assert all(1 <= sample["guidance_scale"] <= 5 for sample in plan["samples"])
    assert plan["filter"] == {"threshold": 0.5}
    for path in ("/datasets", "/jobs", "/images"):
        assert desk.http.get(path).json()["items"] == []


def test_a_dry_runs_samples_are_what_is_then_made(desk: Desk) -> None:
    recipe = {"combine": "sampled", "generation": {"guidance_scale": {"min": 1.0, "max": 5.0}}}
    plan = desk.http.post("/datasets?dry_run=true", json=body(**recipe)).json()
    made = {image["seed"]: image["lineage"] for image in desk.images(desk.make(**recipe))}
    for sample in plan["samples"]:
        for name in ("prompt", "guidance_scale", "num_inference_steps", "variables"):
            assert made[sample["seed"]][name] == sample[name]


def test_the_estimate_follows_from_the_steps_that_the_node_has_taken(desk: Desk) -> None:
    desk.make()
    plan = desk.http.post("/datasets?dry_run=true", json=body(name="other")).json()
    assert plan["estimate_basis"] == "measured"
    assert 0 < plan["estimated_seconds"] < 60
    assert plan["estimate"] == "A step costs what the latest steps at 64x64 pixels took on this node."
    texts = " ".join(plan["assumptions"])
    assert "No worker is live" in texts
    assert "No other job draws images" in texts
    assert "Interactive requests go on taking" in texts


def test_the_estimate_counts_the_jobs_that_share_the_workers(desk: Desk) -> None:
    desk.make()
    alone = desk.http.post("/datasets?dry_run=true", json=body(name="other", train_per_class=500)).json()
    assert desk.http.post("/datasets", json=body(name="beside", train_per_class=500)).status_code == 202
    shared = desk.http.post("/datasets?dry_run=true", json=body(name="other", train_per_class=500)).json()
    assert shared["estimated_seconds"] == pytest.approx(2 * alone["estimated_seconds"], rel=0.2)
    assert any(text.startswith("1 other job draws images") for text in shared["assumptions"])


def test_a_dry_run_refuses_what_the_real_one_would(desk: Desk) -> None:
    made = create(desk.http)
    again, taken = (desk.http.post(path, json=body()) for path in ("/datasets", "/datasets?dry_run=true"))
    assert (taken.status_code, taken.json()["code"]) == (409, "dataset_name_taken")
    assert taken.json()["dataset_id"] == again.json()["dataset_id"] == made["id"]
    empty = desk.http.post("/datasets?dry_run=true", json=body(name="other", train_per_class=0, test_per_class=0))
    assert (empty.status_code, empty.json()["num_images"]) == (200, 0)


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"variables": {}}, "#/classes/0/prompts/0", "unknown_variable"),
        ({"classes": [CLASSES[0], {"name": "b", "prompts": ["a", "{0}"]}]}, "#/classes/1/prompts/1", "bad_template"),
        ({"classes": [CLASSES[0], {"name": "b", "prompts": ["{a.b}"]}]}, "#/classes/1/prompts/0", "bad_template"),
        ({"variables": {**VARIABLES, "light": ["soft"]}}, "#/variables/light", "unused_variable"),
        ({"variables": {**VARIABLES, "style": []}}, "#/variables/style", "too_few"),
        ({"variables": {**VARIABLES, "style": ["x"] * 201}}, "#/variables/style", "too_many"),
        ({"variables": {**VARIABLES, "style": ["x" * 201]}}, "#/variables/style/0", None),
        ({"variables": {f"v{k}": ["x"] for k in range(9)}}, "#/variables", "too_many"),
        (guided({"min": 3, "max": 1}), "#/generation/guidance_scale", "bad_guidance_scale"),
        (guided({"min": 1.05, "max": 2}), "#/generation/guidance_scale", "bad_guidance_scale"),
        (guided(31), "#/generation/guidance_scale", "bad_guidance_scale"),
        (stepped({"min": 9, "max": 151}), "#/generation/num_inference_steps", "bad_num_inference_steps"),
        ({"combine": "all"}, "#/combine", None),
        ({"preset": "pretty"}, "#/preset", None),
        ({"filter": {"threshold": 1.5}}, "#/filter/threshold", "too_large"),
        ({"max_attempts": 51}, "#/max_attempts", "too_large"),
        ({"filter": {}, "classes": [{**entry, "label": "x"} for entry in CLASSES]},
         "#/classes/0/label", "duplicate_labels"),
        ({"variables": {"style": ["x" * 200], "place": [""]}, "classes": [
            CLASSES[0], {"name": "b", "prompts": ["{style}" * 11]}]}, "#/classes/1/prompts/0", "prompt_too_long"),
        ({"variables": {**VARIABLES, "style": ["", "x"]}, "classes": [
            CLASSES[0], {"name": "b", "prompts": ["{style}"]}]}, "#/classes/1/prompts/0", "prompt_may_be_empty"),
        ({"variables": {name: [str(k) for k in range(101)] for name in "abc"}, "classes": [
            {"name": "a", "prompts": ["{a}{b}{c}"]}, {"name": "b", "prompts": ["x"]}]},
         "#/classes/0/prompts/0", "too_many_combinations"),
    ],
)  # fmt: skip
def test_recipes_that_cannot_be(shared_node: Node, changes: dict, pointer: str, code: str | None) -> None:
    answer = shared_node.http.post("/datasets?dry_run=true", json=body(**changes))
    assert answer.status_code == 422, answer.text
    errors = {error["pointer"]: error["code"] for error in answer.json()["errors"]}
    assert pointer in errors, errors
    assert code is None or errors[pointer] == code


@pytest.mark.slow("judges hundreds of classes")
def test_more_classes_than_clip_is_asked_for_at_once_are_judged_among_all(desk: Desk) -> None:
    """The last class's text is asked for apart from the others'; its probability is among all."""
    num = TEXTS_AT_ONCE + 3
    classes = [{"name": f"c{k}", "prompts": ["x"]} for k in range(num)]
    desk.node.models.clip.score = lambda _image, text: 5.0 if text == f"a photo of a c{num - 1}" else 0.0
    read = desk.make(classes=classes, variables={}, filter={}, max_attempts=1, train_per_class=1, test_per_class=0)
    assert (read["num_images"], read["num_rejected"]) == (1, num - 1)
    (kept,) = desk.images(read)
    assert kept["class_name"] == f"c{num - 1}"
    scores = {score["label"]: score["probability"] for score in kept["label_probabilities"]}
    assert scores[f"c{num - 1}"] == pytest.approx(math.exp(5) / (math.exp(5) + num - 1))
    assert len(scores) == MAX_SCORES
    rejected = desk.images(read, decision="rejected")[0]
    assert rejected["label_probabilities"][-1]["label"] == f"c{num - 1}"
