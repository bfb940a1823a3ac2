"""`fine_tune` in `POST /train-jobs`: a tiny network of timm, trained by the node's engine and served by `/classify`."""

import io
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image

from app.jobs import record
from app.jobs.signals import JobCancelled
from app.services.datasets.job import DatasetImages
from app.services.evaluation.job import EvaluateJob
from app.services.inference.backbone_descriptions import NetworkFile
from app.services.inference.modules import NodeModules
from app.services.training.job import TrainJob
from app.storage.features import FeatureCache
from app.storage.layout import DataFolder
from app.training.probe import load_probe, predict
from testing.fake_jobs import FakeJobContext
from testing.fake_models import FakeSource, add_backbone, describe
from testing.fine_tuning import write_backbone_folder
from testing.uploads import create_empty, fill, picture
from testing.waiting import PATIENCE_S, wait_until
from testing.workbench import Workbench

Train = Callable[[str], FakeJobContext]


@pytest.fixture
def tiny(bench: Workbench, tmp_path: Path) -> str:
    """The name of a backbone of random weights that the node has."""
    add_backbone(bench.models, write_backbone_folder(tmp_path / "tiny"))
    return "tiny"


@pytest.fixture
def handler(bench: Workbench) -> TrainJob:
    folder = DataFolder(bench.data_dir)
    images = DatasetImages(bench.db, folder, bench.client, chunk_size=3)
    return TrainJob(bench.db, folder, FeatureCache(folder.features), bench.client, images)


@pytest.fixture
def train(bench: Workbench, handler: TrainJob) -> Train:
    def train(job_id: str) -> FakeJobContext:
        with bench.db.transaction() as session:
            record.begin(session, job_id)
        context = FakeJobContext(bench.db, job_id, handler)
        result = handler.run(context)
        with bench.db.transaction() as session:
            record.finish(session, job_id, handler.on_end, completed=True, result=result)
        return context

    return train


def uploads(bench: Workbench) -> str:
    created = create_empty(bench.http, "photos")
    fill(bench.http, created["id"])
    dataset_id: str = created["id"]
    return dataset_id


def ask(bench: Workbench, **fields: object) -> dict:
    body = {"dataset_id": uploads(bench), "backbone": "tiny", "fine_tune": "last_block", "epochs": 2, **fields}
    answer = bench.http.post("/train-jobs", json=body)
    assert answer.status_code == 202, answer.text
    read: dict = answer.json()
    return read


def test_a_fine_tuned_model_is_trained_listed_and_served(bench: Workbench, tiny: str, train: Train) -> None:
    job = ask(bench, name="mine")
    context = train(job["id"])
    assert [name for name in context.names if name != "progress"] == [
        "backbone",
        "count-images",
        "fit",
        "epoch-1",
        "epoch-2",
        "fine-tuned",
        "register",
    ]
    read = bench.http.get(f"/train-jobs/{job['id']}").json()
    assert (read["status"], [epoch["epoch"] for epoch in read["epochs"]]) == ("succeeded", [1, 2])
    assert read["progress"]["done"] == read["progress"]["total"]

    model = bench.http.get(f"/models/{job['id']}").json()
    assert model["backbone"] == f"model:{job['id']}"
    origin = model["lineage"]["backbone"]["fine_tuned_from"]
    assert origin == {"name": "tiny", "weights_sha256": job["spec"]["backbone_sha256"]}
    assert model["lineage"]["training"]["fine_tuning"]["mode"] == "last_block"
    assert set(model["lineage"]["training"]["probe"]) == {"solver", "validation_accuracy", "test_accuracy", "num_test"}
    assert model["backbone_sha256"] == model["sha256"]
    assert not (bench.data_dir / "finetuning" / job["id"]).exists()

    answer = bench.http.post("/classify", files={"image": picture(1)}, data={"model": "mine"})
    assert answer.status_code == 200, answer.text
    assert sum(one["probability"] for one in answer.json()["predictions"]) == pytest.approx(1, abs=1e-4)
    assert f"model:{job['id']}" not in [one["name"] for one in bench.http.get("/backbones").json()["items"]]


def test_a_fine_tuned_model_leaves_the_node_with_its_own_network(bench: Workbench, tiny: str, train: Train) -> None:
    job = ask(bench, name="mine")
    train(job["id"])
    own = NodeModules(lambda: bench.models.pack, bench.data_dir, bench.data_dir / "models")
    plain = own.load(f"model:{job['id']}")
    assert plain.weights_sha256 == bench.http.get(f"/models/{job['id']}").json()["backbone_sha256"]
    weights = bench.http.get(f"/models/{job['id']}/weights").content
    probe = load_probe(weights)
    with torch.inference_mode():
        features = plain.module(plain.pixels(Image.open(io.BytesIO(picture(1))).convert("RGB"))[None]).numpy()
    answer = bench.http.post("/classify", files={"image": picture(1)}, data={"model": "mine"})
    served = {one["index"]: one["probability"] for one in answer.json()["predictions"]}
    assert predict(probe, features)[0].tolist() == pytest.approx([served[0], served[1]], abs=1e-4)


def test_a_fine_tuned_model_is_evaluated_on_its_own_features(bench: Workbench, tiny: str, train: Train) -> None:
    job = ask(bench)
    train(job["id"])
    dataset_id = job["dataset_id"]
    asked = bench.http.post(f"/models/{job['id']}/evaluations", json={"dataset_id": dataset_id, "split": "test"})
    assert asked.status_code == 202, asked.text
    folder = DataFolder(bench.data_dir)
    bench.handler = EvaluateJob(bench.db, folder, FeatureCache(folder.features), bench.client)
    evaluation_id = bench.work(asked.json()["id"])["evaluation_id"]
    evaluation = bench.http.get(f"/models/{job['id']}/evaluations/{evaluation_id}").json()
    model = bench.http.get(f"/models/{job['id']}").json()
    own, later = model["metrics"]["test"]["real"], evaluation["metrics"]["real"]
    assert (own["accuracy"], own["confusion_matrix"]) == (later["accuracy"], later["confusion_matrix"])
    assert own["brier"] == pytest.approx(later["brier"], abs=1e-4)


def test_early_stopping_is_the_fine_tunings_and_takes_validation_images(bench: Workbench, tiny: str) -> None:
    spec = ask(bench, early_stopping={"patience": 2}, batch_size=4)["spec"]
    assert (spec["fine_tune"], spec["validation"]) == ("last_block", {"fraction": 0.2})
    of_both = [spec["fine_tuning"][name] for name in ("mode", "epochs", "batch_size", "patience")]
    assert of_both == ["last_block", 2, 4, 2]
    assert (spec["head"]["epochs"], spec["head"]["batch_size"], spec["head"]["patience"]) == (10, 16, None)


@pytest.mark.parametrize(
    ("fields", "code", "pointer"),
    [
        ({"backbone": "clip"}, "fine_tune_not_supported", "#/fine_tune"),
        ({"backbone": "tiny+clip"}, "fine_tune_not_supported", "#/fine_tune"),
        ({"epochs": 101}, "too_large", "#/epochs"),
        ({"batch_size": 129}, "too_large", "#/batch_size"),
        ({"backbone": "model:0"}, "backbone_not_found", "#/backbone"),
        ({"fine_tune": "some"}, None, "#/fine_tune"),
        ({"preset": "from_prompts", "backbone": None}, "one_recipe", None),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused(
    bench: Workbench, tiny: str, fields: dict, code: str | None, pointer: str | None
) -> None:
    body = {"dataset_id": uploads(bench), "backbone": "tiny", "fine_tune": "all", **fields}
    answer = bench.http.post("/train-jobs", json=body)
    [fault] = answer.json()["errors"]
    assert answer.status_code == 422
    assert code is None or fault["code"] == code
    assert pointer is None or fault["pointer"] == pointer


def test_without_room_for_the_checkpoints_nothing_starts(bench: Workbench, tiny: str, tmp_path: Path) -> None:
    bench.models.backbones["huge"] = FakeSource(
        replace(
            describe("huge", trained_on="photographs", sha256="b" * 64),
            network=NetworkFile("timm", "vit_base_patch16_224", {"embed_dim": 60_000}, tmp_path / "none"),
        )
    )
    body = {"dataset_id": uploads(bench), "backbone": "huge", "fine_tune": "all"}
    answer = bench.http.post("/train-jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")


def test_a_job_without_it_takes_the_steps_of_earlier_releases(bench: Workbench, tiny: str, train: Train) -> None:
    job = ask(bench, fine_tune=None)
    assert (job["spec"]["fine_tune"], job["spec"]["fine_tuning"]) == (None, None)
    assert [name for name in train(job["id"]).names if name != "progress"] == [
        "backbone",
        "count-images",
        "fit",
        "register",
    ]
    lineage = bench.http.get(f"/models/{job['id']}").json()["lineage"]
    assert "fine_tuning" not in lineage["training"]
    assert lineage["backbone"]["name"] == "tiny"


def test_checkpoints_stay_while_a_job_pauses_and_go_when_it_ends(
    bench: Workbench, tiny: str, handler: TrainJob
) -> None:
    job_id = ask(bench)["id"]
    with bench.db.transaction() as session:
        record.begin(session, job_id)
    context = FakeJobContext(bench.db, job_id, handler)
    checkpoints = bench.data_dir / "finetuning" / job_id
    context.is_cancelled = lambda: (checkpoints / "last.safetensors").exists()
    with pytest.raises(JobCancelled):
        handler.run(context)
    assert bench.http.post(f"/jobs/{job_id}/pause").status_code == 200
    handler.cleanup(context)
    assert (checkpoints / "last.safetensors").exists()

    assert bench.http.post(f"/jobs/{job_id}/cancel").status_code == 200
    handler.cleanup(context)
    assert not checkpoints.exists()


def test_a_repeated_epoch_and_a_repeated_end_give_the_same_model(
    bench: Workbench, tiny: str, handler: TrainJob
) -> None:
    first = ask(bench)
    with bench.db.transaction() as session:
        record.begin(session, first["id"])
    context = FakeJobContext(bench.db, first["id"], handler)
    interrupted = _Interrupted(context)
    for _ in range(4):  # each run breaks off behind one more step, before that is recorded
        with pytest.raises(_Killed):
            handler.run(interrupted)
    broken = handler.run(interrupted)
    other = bench.http.post(
        "/train-jobs",
        json={"dataset_id": first["dataset_id"], "backbone": "tiny", "fine_tune": "last_block", "epochs": 2},
    ).json()
    with bench.db.transaction() as session:
        record.begin(session, other["id"])
    assert handler.run(FakeJobContext(bench.db, other["id"], handler)) == {"model_id": other["id"]}
    models = [bench.http.get(f"/models/{one['id']}").json() for one in (first, other)]
    assert broken == {"model_id": first["id"]}
    assert models[0]["sha256"] == models[1]["sha256"]
    assert [epoch["epoch"] for epoch in bench.http.get(f"/train-jobs/{first['id']}").json()["epochs"]] == [1, 2]


class _Killed(Exception):
    """The process ends here."""


class _Interrupted:
    """A job whose steps are recorded, and whose process ends once behind each step, before the record."""

    def __init__(self, context: FakeJobContext) -> None:
        self._context = context
        self._recorded: dict[str, Any] = {}
        self._killed: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def step(self, name: str, fn: Callable[[], Any]) -> Any:
        if name in self._recorded:
            return self._recorded[name]
        result = json.loads(json.dumps(fn()))
        if name not in self._killed and name != "backbone":
            self._killed.add(name)
            raise _Killed
        self._recorded[name] = result
        return result


def test_a_cancelled_job_does_not_wait_for_the_end_of_its_epoch(bench: Workbench, tiny: str, handler: TrainJob) -> None:
    job_id = ask(bench)["id"]
    with bench.db.transaction() as session:
        record.begin(session, job_id)
    context = FakeJobContext(bench.db, job_id, handler)
    engine, diffusion = bench.models.engine, bench.models.diffusion
    drawing: list[Future[httpx.Response]] = []

    def is_cancelled() -> bool:
        if "fit" in context.names and not drawing:  # a picture's step holds the device from here on
            diffusion.gate.clear()
            body = {"prompt": "a fox", "num_inference_steps": 1}
            drawing.append(pool.submit(bench.http.post, "/generate", json=body))
            assert diffusion.stepping.wait(PATIENCE_S)
        return engine.in_flight().get("fine-tune", 0) > 0

    context.is_cancelled = is_cancelled
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(JobCancelled):
            handler.run(context)
        assert context.names[-1] == "epoch-1"
        diffusion.gate.set()
        assert drawing[0].result().status_code == 200
    wait_until(lambda: not engine.in_flight().get("fine-tune"))
    assert not (bench.data_dir / "finetuning" / job_id / "last.safetensors").exists()
