"""Datasets, train jobs, models and jobs over HTTP; the handlers run here, against the node's own socket."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
import safetensors.numpy
from torchvision.datasets import ImageFolder

from app.db.models import Job
from app.db.session import Database
from app.jobs.handler import JobHandler
from app.jobs.signals import JobCancelled
from app.node.client import NodeClient
from app.services.datasets.job import DatasetImages, DatasetJob
from app.services.datasets.recipes.seeds import image_seed
from app.services.generations.job import GenerateJob
from app.services.training.job import TrainJob
from app.storage.features import FeatureCache
from app.storage.layout import DataFolder
from testing.fake_jobs import run_job
from testing.fake_models import BROKEN_PROMPT, FLAGGED_PROMPT
from testing.node import Node

FOX, DOG = "a watercolor painting of a red fox", "a watercolor painting of a golden retriever"


@dataclass
class Desk:
    """A node and the hands that do its jobs when they are told to."""

    node: Node
    db: Database
    handlers: dict[str, JobHandler]

    def work(self, job_id: str) -> dict | None:
        kind = self.node.http.get(f"/jobs/{job_id}").json()["kind"]
        return run_job(self.db, job_id, self.handlers[kind])


@pytest.fixture
def desk(node: Node) -> Iterator[Desk]:
    settings = node.settings
    db, folder = Database(settings.resolved_database_url), DataFolder(settings.data_dir)
    client = NodeClient(settings.engine_socket)
    images = DatasetImages(db, folder, client, chunk_size=3)
    handlers: list[JobHandler] = [
        GenerateJob(db, folder, client),
        DatasetJob(images),
        TrainJob(db, folder, FeatureCache(folder.features), client, images),
    ]
    yield Desk(node, db, {handler.kind: handler for handler in handlers})
    client.close()
    db.close()


def dataset(**changes: object) -> dict:
    classes = [{"name": "Fox!", "prompts": [FOX, "a fox"]}, {"name": "dog", "prompts": [DOG]}]
    generation = {"num_inference_steps": 1}
    fields = {"name": "fox-dog", "seed": 7, "classes": classes, "train_per_class": 4, "test_per_class": 2}
    return {**fields, "generation": generation, **changes}


def create(http: httpx.Client, **changes: object) -> dict:
    answer = http.post("/datasets", json=dataset(**changes))
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_an_accepted_dataset_tells_everything_and_is_queued(http: httpx.Client) -> None:
    answer = http.post("/datasets", json=dataset())
    read = answer.json()
    assert answer.headers["location"] == f"/datasets/{read['id']}"
    assert (read["status"], read["num_images"], read["seed"]) == ("queued", 0, 7)
    unknown = {"phase": None, "rate_per_minute": None, "estimated_finish_at": None}
    assert read["progress"] == {"done": 0, "total": 12, "unit": "images", **unknown}
    assert read["generation"]["scheduler"] == "pndm"
    assert read["classes"][0]["folder"] != read["classes"][1]["folder"]
    job = http.get(f"/jobs/{read['job_id']}").json()
    assert (job["kind"], job["status"], job["attempts"]) == ("dataset", "queued", 0)
    assert http.get(f"/datasets/{read['id']}").json() == read
    assert http.get("/datasets").json()["items"] == [read]


def test_a_taken_name_is_409_and_leaves_no_job(http: httpx.Client) -> None:
    create(http)
    answer = http.post("/datasets", json=dataset())
    assert (answer.status_code, answer.json()["code"]) == (409, "dataset_name_taken")
    assert len(http.get("/jobs").json()["items"]) == 1


def test_a_dataset_job_makes_every_image_where_imagefolder_finds_it(desk: Desk) -> None:
    created = create(desk.node.http)
    assert desk.work(created["job_id"]) == {"dataset_id": created["id"], "num_images": 12, "num_missing": 0}
    read = desk.node.http.get(f"/datasets/{created['id']}").json()
    assert (read["status"], read["num_images"]) == ("ready", 12)
    folder = desk.node.settings.data_dir / "datasets" / "fox-dog"
    assert [len(ImageFolder(folder / split)) for split in ("train", "test")] == [8, 4]
    assert ImageFolder(folder / "train").classes == sorted(entry["folder"] for entry in read["classes"])


def test_each_image_follows_from_its_place_and_uses_the_prompts_in_turn(desk: Desk) -> None:
    created = create(desk.node.http)
    desk.work(created["job_id"])
    page = desk.node.http.get(f"/datasets/{created['id']}/images", params={"class": "Fox!", "split": "train"}).json()
    lineages = [desk.node.http.get(f"{image['url']}/metadata").json()["lineage"] for image in page["items"]]
    made = {(lineage["seed"], lineage["prompt"]) for lineage in lineages}
    assert made == {(image_seed(7, "Fox!", "train", index, 0), [FOX, "a fox"][index % 2]) for index in range(4)}
    assert {image["class_name"] for image in page["items"]} == {"Fox!"}


def test_a_flagged_or_failed_image_is_tried_again_and_then_missing(desk: Desk) -> None:
    classes = [{"name": "a", "prompts": [FLAGGED_PROMPT]}, {"name": "b", "prompts": [BROKEN_PROMPT]}]
    created = create(desk.node.http, classes=classes, train_per_class=1, test_per_class=0)
    result = desk.work(created["job_id"])
    assert result == {"dataset_id": created["id"], "num_images": 0, "num_missing": 2}
    read = desk.node.http.get(f"/datasets/{created['id']}").json()
    assert read["status"] == "incomplete"
    refused = desk.node.http.post("/train-jobs", json={"dataset_id": created["id"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "dataset_not_ready")


def test_a_chunk_cancelled_before_its_record_leaves_no_files(desk: Desk) -> None:
    created = create(desk.node.http)
    diffusion, handler = desk.node.models.diffusion, desk.handlers["dataset"]
    with pytest.raises(JobCancelled):
        run_job(desk.db, created["job_id"], handler, lambda: diffusion.num_steps >= 6)
    kept = list((desk.node.settings.data_dir / "datasets").rglob("*.png"))
    assert len(kept) == len(desk.node.http.get("/images").json()["items"]) == 3


def test_a_cancelled_dataset_says_so_and_can_be_deleted(http: httpx.Client) -> None:
    created = create(http)
    refused = http.delete(f"/datasets/{created['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "dataset_in_use")
    assert http.post(f"/jobs/{created['job_id']}/cancel").json()["status"] == "cancelled"
    assert http.post(f"/jobs/{created['job_id']}/cancel").json()["status"] == "cancelled"
    assert http.get(f"/datasets/{created['id']}").json()["status"] == "cancelled"
    assert http.delete(f"/datasets/{created['id']}").status_code == 204
    assert http.get(f"/datasets/{created['id']}").status_code == 404


def test_deleting_a_dataset_takes_its_images_and_folder(desk: Desk) -> None:
    created = create(desk.node.http)
    desk.work(created["job_id"])
    _end(desk, created["job_id"])
    image = desk.node.http.get("/images").json()["items"][0]
    assert desk.node.http.delete(f"/datasets/{created['id']}").status_code == 204
    assert desk.node.http.get(image["url"]).status_code == 404
    assert not (desk.node.settings.data_dir / "datasets" / "fox-dog").exists()


def test_training_registers_a_model_that_names_fresh_images(desk: Desk) -> None:
    http = desk.node.http
    created = create(http)
    desk.work(created["job_id"])
    _end(desk, created["job_id"])
    body = {"dataset_id": created["id"], "name": "fox-or-dog", "epochs": 40, "optimizer": {"lr": 0.05}}
    accepted = http.post("/train-jobs", json=body)
    assert accepted.status_code == 202
    job_id = accepted.json()["id"]
    assert accepted.headers["location"] == f"/train-jobs/{job_id}"
    assert http.get(f"/jobs/{job_id}").json()["kind"] == "train"
    assert desk.work(job_id) == {"model_id": job_id}

    read = http.get(f"/train-jobs/{job_id}").json()
    assert [epoch["epoch"] for epoch in read["epochs"]] == list(range(1, 41))
    assert read["progress"]["done"] == read["progress"]["total"] == 12 + 40
    model = http.get(f"/models/{job_id}").json()
    assert (model["name"], model["classes"], model["dataset_id"]) == ("fox-or-dog", ["Fox!", "dog"], created["id"])
    tested = model["metrics"]["test"]["synthetic"] or model["metrics"]["test"]["unseparated"]
    assert (tested["accuracy"]["value"], tested["accuracy"]["n"]) == (1, 4)
    assert tested["confusion_matrix"] == [[2, 0], [0, 2]]
    [listed] = http.get("/models").json()["items"]
    assert {**listed, "metrics": None, "lineage": model["lineage"]} == {**model, "metrics": None}
    assert "per_class" not in str(listed["metrics"])

    for prompt, label in ((FOX, "Fox!"), (DOG, "dog")):
        fresh = http.post("/generate", json={"prompt": prompt, "seed": 99, "num_inference_steps": 1}).json()
        for name in (job_id, "fox-or-dog"):
            asked = {"image_id": fresh["images"][0]["id"], "model": name}
            answer = http.post("/classify", json=asked).json()
            assert answer["model"]["id"] == job_id
            assert answer["predictions"][0]["label"] == label
            assert len(answer["predictions"]) == 2

    weights = http.get(f"/models/{job_id}/weights")
    assert safetensors.numpy.load(weights.content)["fc.bias"].shape == (2,)
    assert http.get(f"/models/{job_id}/weights?format=pickle").status_code == 422
    assert http.delete(f"/models/{job_id}").status_code == 204
    assert http.post("/classify", json={**asked, "model": "fox-or-dog"}).status_code == 422


def test_training_twice_gives_the_same_weights_and_asks_the_backbone_once(desk: Desk) -> None:
    http = desk.node.http
    created = create(http)
    desk.work(created["job_id"])
    _end(desk, created["job_id"])
    models = []
    for _ in range(2):
        job_id = http.post("/train-jobs", json={"dataset_id": created["id"], "epochs": 3}).json()["id"]
        desk.work(job_id)
        _end(desk, job_id)
        models.append(http.get(f"/models/{job_id}").json())
    assert [model["name"] for model in models] == ["fox-dog-1", "fox-dog-2"]
    assert models[0]["sha256"] == models[1]["sha256"]
    cached = list((desk.node.settings.data_dir / "features").rglob("*.npy"))
    # 12 images by the backbone, and the 4 test images by CLIP, for the zero-shot baseline.
    assert len(cached) == 12 + 4


def test_prompts_in_classifier_out_in_one_call(desk: Desk) -> None:
    accepted = desk.node.http.post("/train-jobs", json={"dataset": dataset(), "epochs": 2})
    assert accepted.status_code == 202, accepted.text
    read = accepted.json()
    assert read["progress"]["total"] == 2 * 12 + 2
    assert desk.work(read["id"]) == {"model_id": read["id"]}
    assert desk.node.http.get(f"/datasets/{read['dataset_id']}").json()["status"] == "ready"
    assert desk.node.http.get("/models").json()["items"][0]["name"] == "fox-dog-1"


def test_a_name_being_trained_is_taken(desk: Desk) -> None:
    body = {"dataset": dataset(), "name": "mine"}
    assert desk.node.http.post("/train-jobs", json=body).status_code == 202
    answer = desk.node.http.post("/train-jobs", json={**body, "dataset": dataset(name="other")})
    assert (answer.status_code, answer.json()["code"]) == (409, "model_name_taken")
    assert len(desk.node.http.get("/datasets").json()["items"]) == 1


def test_a_generation_as_a_job_gives_the_images_of_the_inline_one(desk: Desk) -> None:
    http = desk.node.http
    body = {"prompt": FOX, "num_inference_steps": 1, "num_images_per_prompt": 2, "seed": 5, "labels": ["fox"]}
    accepted = http.post("/generate", json=body, headers={"Prefer": "respond-async"})
    assert accepted.status_code == 202
    assert accepted.headers["preference-applied"] == "respond-async"
    job_id = accepted.headers["location"].removeprefix("/jobs/")
    result = desk.work(job_id)
    assert result is not None
    read = http.get(f"/generations/{result['generation_id']}").json()
    inline = http.post("/generate", json=body).json()
    for key in ("parameters", "model", "warnings"):
        assert read[key] == inline[key]
    compared = ("seed", "sha256", "label_probabilities", "clip_score")
    assert [[image[key] for key in compared] for image in read["images"]] == [
        [image[key] for key in compared] for image in inline["images"]
    ]


def test_b64_json_is_refused_for_a_job(http: httpx.Client) -> None:
    body = {"prompt": FOX, "response_format": "b64_json"}
    answer = http.post("/generate", json=body, headers={"Prefer": "respond-async"})
    assert (answer.status_code, answer.json()["code"]) == (422, "b64_json_not_with_respond_async")


def test_jobs_are_filtered_by_kind_and_status(http: httpx.Client) -> None:
    created = create(http)
    http.post("/generate", json={"prompt": FOX}, headers={"Prefer": "respond-async"})
    assert [job["kind"] for job in http.get("/jobs").json()["items"]] == ["generate", "dataset"]
    assert [job["id"] for job in http.get("/jobs?kind=dataset").json()["items"]] == [created["job_id"]]
    assert http.get("/jobs?status=running").json()["items"] == []
    assert http.get("/jobs?kind=nope").status_code == 422


def _end(desk: Desk, job_id: str) -> None:
    """Give a job that was run here its last status, as the worker would."""
    with desk.db.transaction() as session:
        job = session.get(Job, job_id)
        assert job is not None
        job.status = "succeeded"
