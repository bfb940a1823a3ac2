"""Evaluations and comparisons of models over HTTP; the jobs run here, against the node's own socket."""

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select

from app.db.base import new_id
from app.db.models import Dataset, Evaluation, Job
from app.errors import AppError, Conflict, FileLost
from app.jobs import record
from app.jobs.signals import JobCancelled
from app.services.evaluation.job import EvaluateJob
from app.services.evaluation.subject import EvaluatedImage
from app.storage.features import FeatureCache
from app.storage.layout import DataFolder
from testing.fake_jobs import run_job
from testing.fake_models import FakeSource, describe
from testing.trained_models import add_evaluation, add_model
from testing.uploads import upload
from testing.workbench import Workbench

NAMES = ("fox", "dog")


@pytest.fixture
def handler(bench: Workbench) -> EvaluateJob:
    folder = DataFolder(bench.data_dir)
    return EvaluateJob(bench.db, folder, FeatureCache(folder.features), bench.client)


@pytest.fixture
def work(bench: Workbench, handler: EvaluateJob) -> Callable[[str], str]:
    """Runs an `evaluate` job and returns the evaluation's id."""

    def work(job_id: str) -> str:
        with bench.db.transaction() as session:
            record.begin(session, job_id)
        result = run_job(bench.db, job_id, handler)
        assert result is not None
        with bench.db.transaction() as session:
            record.finish(session, job_id, handler.on_end, completed=True, result=result)
        return str(result["evaluation_id"])

    return work


def coloured(seed: int, channel: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 60, (12, 16, 3), dtype=np.uint8)
    pixels[..., channel] += 150
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def create(http: httpx.Client, name: str, *classes: str) -> str:
    body = {"name": name, "seed": 7, "train_per_class": 0, "test_per_class": 0}
    answer = http.post("/datasets", json={**body, "classes": [{"name": one, "prompts": ["x"]} for one in classes]})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def pictures(bench: Workbench, name: str = "photos", classes: tuple[str, ...] = NAMES, split: str = "test") -> str:
    """A dataset whose first class has four red pictures and whose second has three blue ones and a red one."""
    dataset_id = create(bench.http, name, *classes)
    for index, label in enumerate(classes[:2]):
        files = [coloured(10 * index + k, 0 if index == 0 or k == 3 else 2) for k in range(4)]
        assert upload(bench.http, dataset_id, files, class_name=label, split=split).status_code == 201
    return dataset_id


def model(bench: Workbench, *classes: str, **columns: Any) -> str:
    return add_model(bench.db, DataFolder(bench.data_dir), classes or NAMES, **columns)


def post(http: httpx.Client, model_id: str, dataset_id: str, key: str | None = None, **fields: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return http.post(f"/models/{model_id}/evaluations", json={"dataset_id": dataset_id, **fields}, headers=headers)


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    problem = answer.json()
    pointer = problem["errors"][0]["pointer"] if problem.get("errors") else ""
    return answer.status_code, problem["code"], pointer


def test_a_model_is_evaluated_on_another_dataset(bench: Workbench, work: Callable[[str], str]) -> None:
    dataset_id, model_id = pictures(bench), model(bench)
    accepted = post(bench.http, model_id, dataset_id)
    assert accepted.status_code == 202, accepted.text
    job = accepted.json()
    assert accepted.headers["location"] == f"/jobs/{job['id']}"
    assert (job["kind"], job["spec"]["split"]) == ("evaluate", "test")
    assert (job["progress"]["total"], job["progress"]["unit"]) == (8, "images")
    evaluation_id = work(job["id"])

    ended = bench.http.get(f"/jobs/{job['id']}").json()
    assert (ended["status"], ended["result"]) == ("succeeded", {"evaluation_id": evaluation_id})
    assert ended["progress"]["done"] == ended["progress"]["total"] == 8
    read = bench.http.get(f"/models/{model_id}/evaluations/{evaluation_id}").json()
    assert (read["dataset_id"], read["dataset_name"], read["job_id"]) == (dataset_id, "photos", job["id"])
    assert read["metrics"]["headline"]["source"] == "real"
    assert read["metrics"]["real"]["confusion_matrix"] == [[4, 0], [1, 3]]
    assert read["metrics"]["real"]["accuracy"]["value"] == 0.875
    # The training images of the model were 4 of class 0 and 6 of class 1.
    assert read["metrics"]["baselines"]["majority"]["accuracy"]["value"] == 0.5
    [mistake] = read["mistakes"]
    assert (mistake["true_class"], mistake["predicted_class"]) == ("dog", "fox")
    assert bench.http.get(mistake["url"]).status_code == 200
    assert "few_test_images" in [warning["code"] for warning in read["warnings"]]

    [listed] = bench.http.get(f"/models/{model_id}/evaluations").json()["items"]
    assert listed["id"] == evaluation_id
    assert "per_class" not in str(listed)
    assert "mistakes" not in listed
    assert listed["warnings"] == read["warnings"]


def test_a_subset_of_classes_is_matched_by_name_and_order_does_not_matter(
    bench: Workbench, work: Callable[[str], str]
) -> None:
    dataset_id = create(bench.http, "subset", "DOG\u200b ", "Fox")
    files = [coloured(seed, 2) for seed in range(3)]
    assert upload(bench.http, dataset_id, files, class_name="dog", split="test").status_code == 201
    model_id = model(bench, "fox", "dog", "a third")
    evaluation_id = work(post(bench.http, model_id, dataset_id).json()["id"])
    metrics = bench.http.get(f"/models/{model_id}/evaluations/{evaluation_id}").json()["metrics"]["real"]
    assert metrics["confusion_matrix"] == [[0, 0, 0], [0, 3, 0], [0, 0, 0]]
    assert metrics["num_absent_classes"] == 2


def test_unknown_classes_are_named_up_to_a_bound(bench: Workbench) -> None:
    hostile = "\u202e<script>alert(1)</script>" + "🦊" * 150
    dataset_id = create(bench.http, "strange", "fox", hostile, *(f"c{k}" for k in range(998)))
    assert upload(bench.http, dataset_id, [coloured(1, 0)], class_name="fox", split="test").status_code == 201
    answer = post(bench.http, model(bench), dataset_id)
    assert refusal(answer) == (422, "classes_unknown", "#/dataset_id")
    assert "999 of the dataset's 1000 classes" in answer.json()["detail"]
    assert "and 994 more" in answer.json()["detail"]
    assert "\u202e" not in answer.json()["detail"]
    assert len(answer.json()["detail"]) < 400


def test_what_cannot_be_evaluated_is_refused(bench: Workbench) -> None:
    dataset_id, model_id = pictures(bench), model(bench)
    assert refusal(post(bench.http, model_id, dataset_id, split="train")) == (422, "split_empty", "#/split")
    assert refusal(post(bench.http, model_id, dataset_id, split="validation")) == (422, "split_empty", "#/split")
    assert refusal(post(bench.http, model_id, "nothing")) == (422, "dataset_not_found", "#/dataset_id")
    assert post(bench.http, "nothing", dataset_id).status_code == 404
    assert post(bench.http, model_id, dataset_id, split="else").status_code == 422
    assert post(bench.http, model_id, dataset_id, other=1).status_code == 422
    empty = create(bench.http, "empty", *NAMES)
    assert refusal(post(bench.http, model_id, empty)) == (422, "split_empty", "#/split")
    for path in (f"/models/{model_id}/evaluations/{new_id()}", f"/models/{new_id()}/evaluations"):
        assert bench.http.get(path).status_code == 404
    assert bench.http.get(f"/models/{model_id}/evaluations").json()["items"] == []


def test_a_dataset_that_is_being_made_is_not_ready(bench: Workbench) -> None:
    classes = [{"name": name, "prompts": ["x"]} for name in NAMES]
    body = {"name": "queued", "classes": classes, "train_per_class": 1, "test_per_class": 1}
    created = bench.http.post("/datasets", json=body).json()
    assert refusal(post(bench.http, model(bench), created["id"]))[:2] == (409, "dataset_not_ready")


def test_other_weights_or_no_backbone_are_refused_and_fail_the_job(
    bench: Workbench, work: Callable[[str], str]
) -> None:
    dataset_id = pictures(bench)
    assert refusal(post(bench.http, model(bench, backbone="gone"), dataset_id))[:2] == (409, "model_backbone_mismatch")
    other = model(bench, backbone_sha256="a" * 64)
    assert refusal(post(bench.http, other, dataset_id))[:2] == (409, "model_backbone_mismatch")

    bench.models.backbones["photo"] = source = FakeSource(describe("photo", sha256="a" * 64))
    model_id = model(bench, backbone="photo", backbone_sha256="a" * 64)
    job_id = post(bench.http, model_id, dataset_id).json()["id"]
    source.description = describe("photo", sha256="b" * 64)
    with pytest.raises(Conflict, match="other weights") as refused:
        work(job_id)
    assert refused.value.code == "model_backbone_mismatch"
    del bench.models.backbones["photo"]
    with pytest.raises(Conflict, match="not on this node"):
        work(job_id)


def test_another_preprocessing_is_refused(bench: Workbench) -> None:
    lineage = {"backbone": {"preprocessing": {"crop": 32}}}
    answer = post(bench.http, model(bench, lineage=lineage), pictures(bench))
    assert refusal(answer)[:2] == (409, "model_backbone_mismatch")
    assert "another way" in answer.json()["detail"]


@pytest.mark.parametrize(("what", "code"), [("datasets", "dataset_gone"), ("models", "model_gone")])
def test_a_job_whose_subject_was_deleted_fails_with_a_sentence(
    bench: Workbench, work: Callable[[str], str], what: str, code: str
) -> None:
    dataset_id, model_id = pictures(bench), model(bench)
    job_id = post(bench.http, model_id, dataset_id).json()["id"]
    assert bench.http.delete(f"/{what}/{ {'datasets': dataset_id, 'models': model_id}[what] }").status_code == 204
    with pytest.raises(AppError, match="was deleted") as failed:
        work(job_id)
    assert failed.value.code == code
    with bench.db.transaction() as session:
        record.mark_failing(session, job_id, {"code": code})
        record.finish(session, job_id, lambda *_: None, completed=False)
    assert refusal(bench.http.post(f"/jobs/{job_id}/retry"))[:2] == (409, code)


def test_a_dataset_deleted_under_the_running_job_is_named(bench: Workbench, handler: EvaluateJob) -> None:
    dataset_id, model_id = pictures(bench), model(bench)
    job_id = post(bench.http, model_id, dataset_id).json()["id"]
    calls = iter(range(1_000))

    def delete_in_the_middle() -> bool:
        if next(calls) == 4:
            assert bench.http.delete(f"/datasets/{dataset_id}").status_code == 204
        return False

    with pytest.raises(AppError, match="The dataset was deleted") as failed:
        run_job(bench.db, job_id, handler, delete_in_the_middle)
    assert failed.value.code == "dataset_gone"


def test_a_lost_image_fails_the_job_with_its_path(bench: Workbench, work: Callable[[str], str]) -> None:
    dataset_id, model_id = pictures(bench), model(bench)
    job_id = post(bench.http, model_id, dataset_id).json()["id"]
    lost = next((bench.data_dir / "datasets" / "photos" / "test").rglob("*.png"))
    lost.unlink()
    with pytest.raises(FileLost, match=lost.name):
        work(job_id)


def test_a_lost_model_file_fails_the_job(bench: Workbench, work: Callable[[str], str]) -> None:
    dataset_id, model_id = pictures(bench), model(bench)
    job_id = post(bench.http, model_id, dataset_id).json()["id"]
    next((bench.data_dir / "models").rglob("*.safetensors")).unlink()
    with pytest.raises(FileLost) as failed:
        work(job_id)
    assert failed.value.code == "model_file_missing"


def test_a_repeated_job_keeps_one_evaluation_and_a_cancelled_one_has_none(
    bench: Workbench, handler: EvaluateJob, work: Callable[[str], str]
) -> None:
    dataset_id, model_id = pictures(bench), model(bench)
    job_id = post(bench.http, model_id, dataset_id).json()["id"]
    first = run_job(bench.db, job_id, handler)
    assert run_job(bench.db, job_id, handler) == first
    cancelled = post(bench.http, model_id, dataset_id).json()["id"]
    with pytest.raises(JobCancelled):
        run_job(bench.db, cancelled, handler, lambda: True)
    assert len(bench.http.get(f"/models/{model_id}/evaluations").json()["items"]) == 1


def test_concurrent_posts_with_one_key_are_one_job(bench: Workbench) -> None:
    dataset_id, model_id = pictures(bench), model(bench)
    barrier = threading.Barrier(4)

    def send(_: int) -> httpx.Response:
        barrier.wait()
        return post(bench.http, model_id, dataset_id, "one")

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(send, range(4)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.headers["location"] for answer in answers}) == 1
    with bench.db.snapshot() as session:
        assert session.scalar(select(func.count()).where(Job.kind == "evaluate")) == 1
    other = model(bench)
    assert refusal(post(bench.http, other, dataset_id, "one"))[:2] == (422, "idempotency_key_reused")


def test_evaluations_go_with_their_model_and_outlive_their_dataset(
    bench: Workbench, work: Callable[[str], str]
) -> None:
    dataset_id, model_id = pictures(bench), model(bench)
    work(post(bench.http, model_id, dataset_id).json()["id"])
    assert bench.http.delete(f"/datasets/{dataset_id}").status_code == 204
    [listed] = bench.http.get(f"/models/{model_id}/evaluations").json()["items"]
    assert listed["dataset_name"] == "photos"
    assert bench.http.delete(f"/models/{model_id}").status_code == 204
    with bench.db.snapshot() as session:
        assert session.scalar(select(func.count()).select_from(Evaluation)) == 0


def test_images_that_the_model_was_trained_on_are_warned_of(bench: Workbench, work: Callable[[str], str]) -> None:
    dataset_id = pictures(bench, split="train")
    model_id = model(bench, dataset_id=dataset_id)
    evaluation_id = work(post(bench.http, model_id, dataset_id, split="train").json()["id"])
    read = bench.http.get(f"/models/{model_id}/evaluations/{evaluation_id}").json()
    assert read["warnings"][0]["code"] == "evaluated_on_training_images"


def test_a_thousand_classes_are_evaluated_and_the_list_stays_small(
    bench: Workbench, work: Callable[[str], str]
) -> None:
    names = [f"class {k} ".ljust(200, "🦊") for k in range(1_000)]
    dataset_id = create(bench.http, "many", *names)
    for index in range(2):
        files = [coloured(index, 2 * index)]
        assert upload(bench.http, dataset_id, files, class_name=names[index], split="test").status_code == 201
    model_id = model(bench, *names)
    evaluation_id = work(post(bench.http, model_id, dataset_id).json()["id"])
    read = bench.http.get(f"/models/{model_id}/evaluations/{evaluation_id}").json()
    assert (read["metrics"]["real"]["accuracy"]["value"], len(read["metrics"]["real"]["per_class"])) == (1, 1_000)
    assert len(bench.http.get(f"/models/{model_id}/evaluations").content) < 20_000


def compare(http: httpx.Client, *ids: str) -> httpx.Response:
    return http.get("/models/compare", params={"ids": ",".join(ids)})


def rows(num: int, prefix: str = "i", source: str = "real") -> list[EvaluatedImage]:
    return [EvaluatedImage(f"{prefix}{k}", source, k % 2, None) for k in range(num)]


def test_models_are_compared_on_what_all_were_evaluated_on(bench: Workbench) -> None:
    right, wrong = model(bench, name="right"), model(bench, name="wrong")
    add_evaluation(bench.db, right, rows(60), [k % 2 for k in range(60)], NAMES, dataset_id="shared")
    add_evaluation(bench.db, wrong, rows(60), [0] * 60, NAMES, dataset_id="shared")
    # Newer, but only one of them has it.
    add_evaluation(bench.db, wrong, rows(5, "other"), [1] * 5, NAMES, dataset_id="elsewhere")
    answer = compare(bench.http, right, wrong)
    assert answer.status_code == 200, answer.text
    read = answer.json()
    assert [one["accuracy"]["value"] for one in read["real"]["models"]] == [1.0, 0.5]
    assert [one["name"] for one in read["real"]["models"]] == ["right", "wrong"]
    [pair] = read["real"]["pairs"]
    assert (pair["first_id"], pair["second_id"], pair["verdict"]) == (right, wrong, "better")
    assert (read["synthetic"], read["num_left_out"], read["warnings"]) == (None, 0, [])


def test_nothing_in_common_is_a_warning(bench: Workbench) -> None:
    first, second, third = model(bench), model(bench), model(bench)
    add_evaluation(bench.db, first, rows(4, "a"), [0] * 4, NAMES, dataset_id="a")
    add_evaluation(bench.db, second, rows(4, "b"), [0] * 4, NAMES, dataset_id="b")
    for ids in ((first, second), (first, third)):
        read = compare(bench.http, *ids).json()
        assert (read["real"], read["synthetic"]) == (None, None)
        assert [warning["code"] for warning in read["warnings"]] == ["no_common_images"]


def test_only_two_to_ten_different_models_are_compared(bench: Workbench) -> None:
    one = model(bench)
    for ids in ([one], [one, one], [one, ""], [one, "../x"], [new_id() for _ in range(11)]):
        assert refusal(compare(bench.http, *ids)) == (422, "bad_model_ids", "#query/ids")
    assert refusal(compare(bench.http, one, new_id())) == (422, "model_not_found", "#query/ids")
    assert bench.http.get("/models/compare").status_code == 422
    assert bench.http.get(f"/models/{one}").status_code == 200


def test_an_incomplete_dataset_is_evaluated_as_it_is(bench: Workbench, work: Callable[[str], str]) -> None:
    dataset_id, model_id = pictures(bench), model(bench)
    with bench.db.transaction() as session:
        session.get_one(Dataset, dataset_id).status = "incomplete"
    assert work(post(bench.http, model_id, dataset_id).json()["id"])
