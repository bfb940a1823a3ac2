"""Reports of train jobs over HTTP: what they are made from, and jobs that have none."""

import base64
import io
from typing import Any

import httpx
import pytest
from PIL import Image

from app.db.base import new_id
from app.db.models import Dataset, Job
from app.jobs import record
from app.services.evaluation.subject import EvaluatedImage
from app.services.training.job import TrainJob
from app.storage.features import FeatureCache
from app.storage.layout import DataFolder
from testing.fake_jobs import run_job
from testing.node import Node
from testing.trained_models import add_epochs, add_evaluation, add_job, add_model, evaluated
from testing.uploads import CLASSES, create_empty, fill
from testing.workbench import Workbench

PICTURES = ("accuracy", "curves", "classes", "confusion", "reliability")
HTML = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}


def images_of(http: httpx.Client, dataset_id: str, split: str = "test") -> list[EvaluatedImage]:
    items = http.get(f"/datasets/{dataset_id}/images", params={"split": split, "limit": 100}).json()["items"]
    classes = [one["name"] for one in http.get(f"/datasets/{dataset_id}").json()["classes"]]
    return [EvaluatedImage(one["id"], one["source"], classes.index(one["class_name"]), one["seed"]) for one in items]


def trained(bench: Workbench, dataset_id: str, classes: list[str], **columns: Any) -> str:
    """A model, and the evaluation by its train job, which takes every test image for the first class."""
    images = images_of(bench.http, dataset_id)
    metrics, _ = evaluated(images, [0] * len(images), classes)
    folder = DataFolder(bench.data_dir)
    model_id = add_model(bench.db, folder, classes, dataset_id=dataset_id, metrics=metrics, **columns)
    add_evaluation(
        bench.db, model_id, images, [0] * len(images), classes, dataset_id=dataset_id, job_id=model_id
    )  # fmt: skip
    add_epochs(bench.db, model_id, 2, is_validated=True)
    return model_id


@pytest.fixture
def uploaded(bench: Workbench) -> str:
    """A train job on uploads under a hostile class name."""
    dataset_id = create_empty(bench.http)["id"]
    fill(bench.http, dataset_id)
    return trained(bench, dataset_id, CLASSES)


def report(http: httpx.Client, job_id: str) -> dict[str, Any]:
    answer = http.get(f"/train-jobs/{job_id}/report")
    assert answer.status_code == 200, answer.text
    read: dict[str, Any] = answer.json()
    return read


def test_the_report_has_what_the_records_have(bench: Workbench, uploaded: str) -> None:
    read = report(bench.http, uploaded)
    assert (read["job_id"], read["model_id"], read["name"]) == (uploaded, uploaded, f"model-{uploaded[-12:]}")
    assert read["metrics"]["test"]["headline"]["source"] == "real"
    assert (read["held_out_split"], [one["held_out_loss"] for one in read["epochs"]]) == ("validation", [2.0, 1.0])
    settings = {one["name"]: one["value"] for one in read["settings"]}
    assert settings.items() >= {"backbone": "resnet18", "optimizer.lr": "0.1", "allow_incomplete": "false"}.items()
    counts = [(one["num_train"], one["num_test"], one["num_real"]) for one in read["lineage"]["classes"]]
    assert counts == [(2, 2, 4), (2, 2, 4)]
    assert (read["lineage"]["generator"], read["lineage"]["num_prompts"]) == (None, 0)
    assert "few_test_images" in [warning["code"] for warning in read["warnings"]]
    assert len(read["mistakes"]) == 2
    for mistake in read["mistakes"]:
        thumbnail = Image.open(io.BytesIO(base64.b64decode(mistake["thumbnail_b64"])))
        assert max(thumbnail.size) <= 96
        assert bench.http.get(mistake["url"]).status_code == 200


def test_the_page_is_chosen_by_accept_and_runs_nothing(bench: Workbench, uploaded: str) -> None:
    path = f"/train-jobs/{uploaded}/report"
    page = bench.http.get(path, headers=HTML)
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["vary"] == "Accept, Accept-Encoding"
    assert "Fox! | &lt;b&gt;" in page.text
    assert "<b>`" not in page.text
    assert "<script" not in page.text
    assert bench.http.get(path, headers={"Accept": "image/png"}).status_code == 406
    again = bench.http.get(path, headers={**HTML, "If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_each_chart_is_a_png(bench: Workbench, uploaded: str) -> None:
    for name in PICTURES:
        answer = bench.http.get(f"/train-jobs/{uploaded}/report/{name}.png")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), name
        assert Image.open(io.BytesIO(answer.content)).width > 100
        unchanged = bench.http.get(
            f"/train-jobs/{uploaded}/report/{name}.png", headers={"If-None-Match": answer.headers["etag"]}
        )
        assert unchanged.status_code == 304
    assert bench.http.get(f"/train-jobs/{uploaded}/report/else.png").status_code == 404


def test_prompts_and_seeds_of_generated_images_are_told(bench: Workbench) -> None:
    made = bench.make("drawn", train_per_class=30, test_per_class=2)
    job_id = trained(bench, made["id"], ["fox", "dog"])
    lineage = report(bench.http, job_id)["lineage"]
    assert lineage["generator"] == "demo fake"
    assert lineage["num_prompts"] == len(lineage["prompts"]) == 12
    assert sum(prompt["num_images"] for prompt in lineage["prompts"]) == 64
    images = bench.http.get("/images", params={"dataset_id": made["id"], "limit": 100}).json()["items"]
    assert {seed for prompt in lineage["prompts"] for seed in prompt["seeds"]} <= {one["seed"] for one in images}
    for prompt in lineage["prompts"]:
        assert len(set(prompt["seeds"])) == min(prompt["num_images"], 20)
        assert prompt["class_name"] in prompt["prompt"]


def test_a_changed_dataset_is_said_and_a_deleted_one_leaves_the_figures(bench: Workbench) -> None:
    dataset_id = create_empty(bench.http)["id"]
    fill(bench.http, dataset_id)
    job_id = trained(bench, dataset_id, CLASSES, dataset={"version": "0" * 64})
    assert "dataset_changed" in [warning["code"] for warning in report(bench.http, job_id)["warnings"]]
    assert bench.http.delete(f"/datasets/{dataset_id}").status_code == 204
    read = report(bench.http, job_id)
    assert "dataset_deleted" in [warning["code"] for warning in read["warnings"]]
    assert [one["num_test"] for one in read["lineage"]["classes"]] == [2, 2]
    assert [mistake["thumbnail_b64"] for mistake in read["mistakes"]] == [None, None]
    assert bench.http.get(f"/train-jobs/{job_id}/report", headers=HTML).status_code == 200


def test_a_damaged_image_has_no_thumbnail(bench: Workbench, uploaded: str) -> None:
    for path in (bench.data_dir / "datasets").rglob("*.png"):
        path.write_bytes(b"no picture")
    assert [mistake["thumbnail_b64"] for mistake in report(bench.http, uploaded)["mistakes"]] == [None, None]


def test_a_model_of_an_older_release_has_a_report_with_empty_sections(bench: Workbench) -> None:
    dataset_id = create_empty(bench.http)["id"]
    fill(bench.http, dataset_id)
    lineage = {"backbone": {"preprocessing": "resize 256, crop 224"}}
    job_id = add_model(bench.db, DataFolder(bench.data_dir), CLASSES, dataset_id=dataset_id, lineage=lineage)
    add_epochs(bench.db, job_id, 1, is_validated=False)
    read = report(bench.http, job_id)
    assert (read["mistakes"], read["label_errors"], read["warnings"]) == ([], None, [])
    assert (read["held_out_split"], read["epochs"][0]["held_out_loss"]) == ("test", 3.0)
    assert read["metrics"]["test"]["unseparated"]["n"] == 8
    assert [one["num_train"] for one in read["lineage"]["classes"]] == [4, 4]
    assert read["lineage"]["dataset_version"] is None
    assert bench.http.get(f"/train-jobs/{job_id}/report", headers=HTML).status_code == 200


@pytest.mark.parametrize("status", ["queued", "running", "paused", "failed", "cancelled"])
def test_a_job_that_has_not_succeeded_has_no_report(bench: Workbench, status: str) -> None:
    job_id = new_id()
    with bench.db.transaction() as session:
        add_job(session, job_id, status=status)
    for path in (f"/train-jobs/{job_id}/report", f"/train-jobs/{job_id}/report/curves.png"):
        answer = bench.http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (409, "train_job_unfinished")
        assert status in answer.json()["detail"]


def test_a_deleted_model_takes_its_report_along(bench: Workbench, uploaded: str) -> None:
    assert bench.http.delete(f"/models/{uploaded}").status_code == 204
    answer = bench.http.get(f"/train-jobs/{uploaded}/report")
    assert answer.status_code == 404
    assert "model of this train job was deleted" in answer.json()["detail"]


def test_other_jobs_and_ids_have_no_report(node: Node) -> None:
    body = {"name": "d", "classes": [{"name": n, "prompts": ["x"]} for n in "ab"], "train_per_class": 1}
    other = node.http.post("/datasets", json={**body, "test_per_class": 0}).json()["job_id"]
    for job_id in (other, new_id(), "nothing"):
        assert node.http.get(f"/train-jobs/{job_id}/report").status_code == 404


def test_a_thousand_hostile_classes_fit_into_the_report(bench: Workbench) -> None:
    names = [f"\u202e</style><script>{k}</script>".ljust(200, "🦊") for k in range(1_000)]
    images = [EvaluatedImage(new_id(), "real", k % 1_000, None) for k in range(3_000)]
    predicted = [(k + k % 7) % 1_000 for k in range(3_000)]
    metrics, _ = evaluated(images, predicted, names)
    with bench.db.transaction() as session:
        session.add(Dataset(id=(dataset_id := new_id()), name="many", status="ready", seed=0, train_per_class=0,
                            test_per_class=0, generation={}, classes=[{"name": name} for name in names]))  # fmt: skip
    job_id = add_model(bench.db, DataFolder(bench.data_dir), names, dataset_id=dataset_id, metrics=metrics)
    add_evaluation(bench.db, job_id, images, predicted, names, dataset_id=dataset_id, job_id=job_id)
    read = report(bench.http, job_id)
    assert (len(read["lineage"]["classes"]), len(read["mistakes"])) == (1_000, 100)
    page = bench.http.get(f"/train-jobs/{job_id}/report", headers=HTML)
    assert len(page.content) < 3_000_000
    assert "<script" not in page.text
    for name in ("classes", "confusion"):
        assert bench.http.get(f"/train-jobs/{job_id}/report/{name}.png").status_code == 200


def test_the_warnings_of_the_request_are_in_the_report(bench: Workbench, uploaded: str) -> None:
    warning = {"code": "backbone_trained_on_drawings", "detail": "The backbone was trained on drawings only."}
    with bench.db.transaction() as session:
        job = session.get_one(Job, uploaded)
        job.spec = {**job.spec, "warnings": [warning, warning]}
    warnings = report(bench.http, uploaded)["warnings"]
    assert warnings.count(warning) == 1


def test_a_train_job_writes_what_its_report_shows(bench: Workbench) -> None:
    dataset_id = create_empty(bench.http)["id"]
    fill(bench.http, dataset_id)
    job_id = bench.http.post("/train-jobs", json={"dataset_id": dataset_id, "epochs": 3}).json()["id"]
    folder = DataFolder(bench.data_dir)
    handler = TrainJob(bench.db, folder, FeatureCache(folder.features), bench.client, bench.images)
    with bench.db.transaction() as session:
        record.begin(session, job_id)
    result = run_job(bench.db, job_id, handler)
    with bench.db.transaction() as session:
        record.finish(session, job_id, handler.on_end, completed=True, result=result)
    read = report(bench.http, job_id)
    assert read["metrics"]["test"]["real"]["n"] == 4
    assert read["metrics"]["test"]["baselines"]["majority"]["source"] == "real"
    assert [one["num_train"] for one in read["lineage"]["classes"]] == [4, 4]
    assert len(read["lineage"]["dataset_version"]) == 64
    assert read["metrics"] == bench.http.get(f"/models/{job_id}").json()["metrics"]
    [evaluation] = bench.http.get(f"/models/{job_id}/evaluations").json()["items"]
    assert (evaluation["job_id"], evaluation["split"]) == (job_id, "test")
    assert bench.http.get(f"/train-jobs/{job_id}/report", headers=HTML).status_code == 200
