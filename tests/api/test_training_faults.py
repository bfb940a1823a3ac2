"""Datasets and settings that go wrong, for every way to train: a code and a sentence, at the request where possible."""

import io
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image

from app.errors import AppError
from app.jobs import record
from testing.fake_models import FakeSource, describe
from testing.uploads import CLASSES, create_empty, fill, picture, upload
from testing.workbench import Workbench
from tests.api.test_fine_tuning import Train, handler, tiny, train

__all__ = ["handler", "tiny", "train"]  # fixtures

SOLVERS: dict[str, dict[str, Any]] = {
    solver: {"head": {"solver": solver}} for solver in ("sgd", "adamw", "lbfgs", "ridge", "prototypes", "sweep")
}
FINE_TUNINGS: dict[str, dict[str, Any]] = {
    f"fine_tune {mode}": {"fine_tune": mode, "backbone": "tiny", "epochs": 1} for mode in ("head", "last_block", "all")
}
MODES = {**SOLVERS, "from_prompts": {"preset": "from_prompts"}, **FINE_TUNINGS}
Faulty = Callable[[dict[str, Any]], tuple[str, AppError]]


@pytest.fixture
def photos(bench: Workbench, tiny: str) -> str:
    """A dataset without images, on a node with all backbones of the preset and one to fine-tune."""
    bench.models.backbones["photo"] = FakeSource(describe("photo", trained_on="photographs"))
    dataset_id: str = create_empty(bench.http, "photos")["id"]
    return dataset_id


@pytest.fixture
def failing(bench: Workbench, train: Train, photos: str) -> Faulty:
    """Trains, and returns the id and the error of the job, which fails."""

    def failing(fields: dict[str, Any]) -> tuple[str, AppError]:
        job_id = accepted(bench, photos, fields)
        with pytest.raises(AppError) as failed:
            train(job_id)
        with bench.db.transaction() as session:
            record.mark_failing(session, job_id, record.problem_of(failed.value))
            record.finish(session, job_id, lambda *_: None, completed=False)
        return job_id, failed.value

    return failing


def ask(bench: Workbench, dataset_id: str, fields: dict[str, Any]) -> httpx.Response:
    return bench.http.post("/train-jobs", json={"dataset_id": dataset_id, **fields})


def accepted(bench: Workbench, dataset_id: str, fields: dict[str, Any]) -> str:
    answer = ask(bench, dataset_id, fields)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def warned(bench: Workbench, train: Train, dataset_id: str, fields: dict[str, Any]) -> dict[str, str]:
    """Train, and return the warnings by their codes."""
    job_id = accepted(bench, dataset_id, fields)
    train(job_id)
    return {one["code"]: one["detail"] for one in bench.http.get(f"/train-jobs/{job_id}").json()["warnings"]}


def one_bit_changed(data: bytes) -> bytes:
    image = Image.open(io.BytesIO(data))
    red, green, blue = image.getpixel((0, 0))  # type: ignore[misc]
    image.putpixel((0, 0), (red ^ 1, green, blue))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    problem = answer.json()
    return answer.status_code, problem["code"], problem["errors"][0]["pointer"]


def test_one_class_is_no_dataset(bench: Workbench) -> None:
    body = {"name": "one", "classes": [{"name": "fox", "prompts": ["x"]}], "train_per_class": 1}
    for answer in (
        bench.http.post("/datasets", json=body),
        bench.http.post("/train-jobs", json={"preset": "from_prompts", "dataset": body}),
    ):
        assert answer.status_code == 422
        [fault] = answer.json()["errors"]
        assert (fault["code"], fault["pointer"].rsplit("/", 1)[1]) == ("too_few", "classes")


def test_before_the_job_starts_is_known_what_the_dataset_lacks(bench: Workbench, photos: str) -> None:
    for fields in MODES.values():
        answer = ask(bench, photos, fields)
        assert (answer.status_code, answer.json()["code"]) == (409, "dataset_not_ready")
    upload(bench.http, photos, [picture(1)], class_name=CLASSES[0])
    upload(bench.http, photos, [picture(2)], class_name=CLASSES[1], split="test")
    for fields in MODES.values():
        answer = ask(bench, photos, fields)
        assert refusal(answer) == (422, "class_without_images", "#/dataset_id")
        assert "1 of 2 have none: dog" in answer.json()["detail"]
    assert bench.http.delete(f"/datasets/{photos}").status_code == 204
    for fields in MODES.values():
        assert refusal(ask(bench, photos, fields)) == (422, "dataset_not_found", "#/dataset_id")
    assert bench.http.get("/train-jobs").json()["items"] == []


def test_one_image_a_class_is_trained_and_warned_of(bench: Workbench, train: Train, photos: str) -> None:
    fill(bench.http, photos, num_train=1, num_test=0)
    assert refusal(ask(bench, photos, MODES["sweep"])) == (422, "validation_empty", "#/head")
    for mode in MODES.keys() - {"sweep"}:
        found = warned(bench, train, photos, MODES[mode])
        assert {"few_training_images", "no_test_images"} <= found.keys(), mode
        assert "dog" in found["few_training_images"]


def test_a_hundred_to_two_and_a_class_absent_from_the_test_are_warned_of(
    bench: Workbench, train: Train, photos: str
) -> None:
    for start in range(0, 100, 20):
        files = [picture(start + seed) for seed in range(20)]
        assert upload(bench.http, photos, files, class_name=CLASSES[0]).status_code == 201
    upload(bench.http, photos, [picture(200), picture(201)], class_name=CLASSES[1])
    upload(bench.http, photos, [picture(300), picture(301)], class_name=CLASSES[0], split="test")
    for mode in ("sgd", "prototypes", "sweep", "fine_tune head"):  # what is warned of is the same for all, and slow
        found = warned(bench, train, photos, MODES[mode])
        assert {"class_imbalance", "class_absent_from_test", "few_training_images"} <= found.keys(), mode
        trained = 80 if mode == "sweep" else 100  # a sweep holds a fifth out
        assert f"{trained} training images" in found["class_imbalance"]
        assert "dog" in found["class_absent_from_test"]


def test_the_same_photograph_under_two_labels_is_refused_or_warned_of(
    bench: Workbench, train: Train, photos: str
) -> None:
    fill(bench.http, photos, num_train=4, num_test=0)
    again = upload(bench.http, photos, [picture(1_000)], class_name=CLASSES[1]).json()
    assert again["files"][0]["refused"]["code"] == "duplicate_image"
    changed = [one_bit_changed(picture(1_000 + seed)) for seed in range(2)]
    assert upload(bench.http, photos, changed, class_name=CLASSES[1]).json()["num_accepted"] == 2
    for mode, fields in MODES.items():
        found = warned(bench, train, photos, fields)
        assert found.get("near_duplicates_across_labels", "").startswith("2 pairs of nearly equal images"), mode


@pytest.mark.parametrize("fault", ["gone", "truncated", "another picture"])
def test_a_file_without_its_image_ends_every_training_and_is_named(
    bench: Workbench, photos: str, failing: Faulty, fault: str
) -> None:
    fill(bench.http, photos, num_train=2, num_test=0)
    path = sorted((bench.data_dir / "datasets" / "photos").rglob("*.png"))[1]
    if fault == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100] if fault == "truncated" else picture(7))
    for mode, fields in MODES.items():
        job_id, error = failing(fields)
        code = "image_file_missing" if fault == "gone" else "image_file_damaged"
        assert (error.status, error.code) == (410, code), mode
        assert path.name in error.detail
        assert f"POST /datasets/{photos}/repair" in error.detail
        assert not (bench.data_dir / "finetuning" / job_id / "last.safetensors").exists()


def test_a_file_lost_after_its_features_were_kept_ends_a_fine_tuning(
    bench: Workbench, train: Train, photos: str, failing: Faulty
) -> None:
    fill(bench.http, photos, num_train=2, num_test=0)
    train(accepted(bench, photos, {"backbone": "tiny", "epochs": 1}))
    path = sorted((bench.data_dir / "datasets" / "photos").rglob("*.png"))[1]
    path.write_bytes(picture(7))
    for fields in FINE_TUNINGS.values():
        _, error = failing(fields)
        assert (error.status, error.code) == (410, "image_file_damaged")
        assert path.name in error.detail
    train(accepted(bench, photos, {"backbone": "tiny", "epochs": 2}))  # by the kept features of the recorded picture


def test_a_learning_rate_that_is_too_large_or_too_small_is_no_success(
    bench: Workbench, train: Train, photos: str, failing: Faulty
) -> None:
    files = [picture(seed) for seed in range(6)]  # in both classes, so that no head is right on them
    upload(bench.http, photos, files, class_name=CLASSES[0])
    upload(bench.http, photos, list(map(one_bit_changed, files)), class_name=CLASSES[1])
    for fields in (
        {"backbone": "resnet18", "head": {"solver": "sgd", "lr": 10.0, "momentum": 0.99}},
        {"backbone": "resnet18", "optimizer": {"lr": 10.0, "momentum": 0.99}},
        {"backbone": "resnet18", "head": {"solver": "adamw", "lr": 10.0}, "epochs": 100},
        {**FINE_TUNINGS["fine_tune all"], "head": {"solver": "sgd", "lr": 10.0, "momentum": 0.99}},
    ):
        job_id, error = failing(fields)
        assert (error.status, error.code) == (422, "diverged")
        assert error.detail.endswith("Use a smaller learning rate.")
        assert bench.http.get(f"/models/{job_id}").status_code == 404
    for fields in ({"head": {"solver": "sgd", "lr": 1e-12}}, {"head": {"solver": "lbfgs", "c": 1e-6}}):
        assert "not_trained" in warned(bench, train, photos, {"backbone": "resnet18", **fields})


def test_a_dataset_in_training_stays_and_its_retry_is_refused_once_it_is_deleted(bench: Workbench, photos: str) -> None:
    fill(bench.http, photos, num_train=1, num_test=0)
    job_id = accepted(bench, photos, {})
    held = bench.http.delete(f"/datasets/{photos}")
    assert (held.status_code, held.json()["code"]) == (409, "dataset_in_use")
    with bench.db.transaction() as session:
        record.begin(session, job_id)
        record.mark_failing(session, job_id, {"code": "internal_error"})
        record.finish(session, job_id, lambda *_: None, completed=False)
    assert bench.http.delete(f"/datasets/{photos}").status_code == 204
    again = bench.http.post(f"/jobs/{job_id}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "dataset_gone")
    assert again.json()["detail"].startswith("The dataset was deleted. ")
