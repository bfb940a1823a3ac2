"""What a train job can be asked for: solvers, validation, views, few shots, presets; and what it says of the result."""

from typing import Any

import httpx
import pytest

from app.schemas.train_jobs import TrainJobCreate
from testing.fake_models import FakeSource, describe
from testing.uploads import picture
from tests.api.conftest import Serve
from tests.api.test_jobs import Desk, _end, create, dataset, desk

__all__ = ["desk"]  # a fixture


def made(desk: Desk, **changes: object) -> str:
    created = create(desk.node.http, **changes)
    desk.work(created["job_id"])
    _end(desk, created["job_id"])
    return str(created["id"])


def trained(desk: Desk, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train and return the job and the model."""
    answer = desk.node.http.post("/train-jobs", json=body)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    desk.work(job_id)
    _end(desk, job_id)
    http = desk.node.http
    return http.get(f"/train-jobs/{job_id}").json(), http.get(f"/models/{job_id}").json()


@pytest.mark.parametrize("solver", ["sgd", "adamw", "lbfgs", "ridge", "prototypes", "sweep"])
def test_every_solver_trains_a_model_that_classifies(desk: Desk, solver: str) -> None:
    body = {"dataset_id": made(desk), "epochs": 3, "head": {"solver": solver}, "name": "mine"}
    job, model = trained(desk, body)
    assert job["spec"]["head"]["solver"] == solver
    chosen = model["lineage"]["training"]["chosen"]["solver"]
    assert chosen == ("lbfgs" if solver == "sweep" else solver)
    assert model["metrics"]["test"]["synthetic"]["n"] == 4
    assert model["metrics"]["test"]["real"] is None
    files = {"image": ("a.png", picture(1))}
    answer = desk.node.http.post("/classify", files=files, data={"model": "mine"})
    assert [one["label"] for one in answer.json()["predictions"]] in (["Fox!", "dog"], ["dog", "Fox!"])


def test_a_sweep_holds_out_a_fifth_of_each_class_and_says_so(desk: Desk) -> None:
    body = {"dataset_id": made(desk), "epochs": 2, "head": {"solver": "sweep", "sweep_solver": "adamw"}}
    job, model = trained(desk, body)
    assert job["spec"]["validation"] == {"fraction": 0.2}
    assert [model["metrics"][split]["synthetic"]["n"] for split in ("train", "validation", "test")] == [6, 2, 4]
    assert job["epochs"][0]["validation_loss"] is not None


def test_early_stopping_keeps_the_best_epoch(desk: Desk) -> None:
    body = {"dataset_id": made(desk), "epochs": 50, "early_stopping": {"patience": 1}, "optimizer": {"lr": 10.0}}
    answer = desk.node.http.post("/train-jobs", json=body)
    assert answer.json()["spec"]["head"]["patience"] == 1


def test_views_are_further_training_rows_and_the_test_stays_plain(desk: Desk) -> None:
    job, model = trained(desk, {"dataset_id": made(desk), "augment": {"flip": True, "crops": 2}, "epochs": 1})
    assert job["spec"]["augment"] == {"flip": True, "crops": 2}
    assert model["metrics"]["train"]["synthetic"]["n"] == 8
    cached = list((desk.node.settings.data_dir / "features").rglob("*.npy"))
    # Plain views of 12 images, three more of the 8 training images, and CLIP's of the 4 test images.
    assert len(cached) == 12 + 3 * 8 + 4


def test_a_model_is_compared_with_guessing_and_with_clip(desk: Desk) -> None:
    _, model = trained(desk, {"dataset_id": made(desk), "epochs": 2})
    baselines = model["metrics"]["test"]["baselines"]
    assert baselines["majority"]["accuracy"]["n"] == 4
    assert baselines["nearest_centroid"]["accuracy"]["value"] == 1.0
    assert baselines["clip_zero_shot"]["model_minus_baseline"]["verdict"] in ("better", "not_distinguishable")
    assert model["metrics"]["test"]["headline"]["source"] == "synthetic"
    assert "generated images only" in model["metrics"]["test"]["headline"]["sentence"]


def test_few_uploads_on_a_backbone_of_photographs_get_class_means(desk: Desk) -> None:
    desk.node.models.backbones["photo"] = FakeSource(describe("photo", trained_on="photographs"))
    dataset_id = made(desk, train_per_class=1)
    form = {"class_name": "dog", "split": "train"}
    for seed in range(3):
        files = [("files", ("a.png", picture(seed)))]
        assert desk.node.http.post(f"/datasets/{dataset_id}/images", data=form, files=files).status_code == 201
    job, _ = trained(desk, {"dataset_id": dataset_id})
    assert (job["spec"]["backbone"], job["spec"]["head"]["solver"]) == ("photo", "prototypes")
    asked, _ = trained(desk, {"dataset_id": dataset_id, "epochs": 2})
    assert asked["spec"]["head"]["solver"] == "sgd"


def test_generated_images_are_trained_as_the_practical_does(desk: Desk) -> None:
    job, _ = trained(desk, {"dataset_id": made(desk)})
    spec = job["spec"]
    assert (spec["backbone"], spec["head"]["solver"], spec["head"]["lr"]) == ("resnet18", "sgd", 0.001)


def test_from_prompts_needs_names_alone_and_combines_backbones(desk: Desk) -> None:
    desk.node.models.backbones["photo"] = FakeSource(describe("photo", trained_on="photographs"))
    recipe = dataset(classes=[{"name": "fox"}, {"name": "dog"}], filter=None)
    answer = desk.node.http.post("/train-jobs", json={"preset": "from_prompts", "dataset": recipe, "name": "mine"})
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    assert answer.json()["spec"]["backbone"] == "resnet18+photo+clip"
    desk.work(job_id)
    _end(desk, job_id)
    written = desk.node.http.get(f"/datasets/{answer.json()['dataset_id']}/recipe").json()
    assert all("{style}" in prompt for entry in written["classes"] for prompt in entry["prompts"])
    model = desk.node.http.get(f"/models/{job_id}").json()
    assert model["backbone"] == "resnet18+photo+clip"
    files = {"image": ("a.png", picture(1))}
    predicted = desk.node.http.post("/classify", files=files, data={"model": "mine"})
    assert predicted.status_code == 200, predicted.text


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"head": {"solver": "svm"}}, "#/head/solver", "literal_error"),
        ({"head": {"solver": "sgd", "warmup_epochs": 10}}, "#/head", "bad_head"),
        ({"head": {"solver": "sweep"}, "early_stopping": {"patience": 2}}, "#/head", "bad_head"),
        ({"head": {"lr": 0.1}, "optimizer": {"lr": 0.1}}, "#", "one_solver"),
        ({"preset": "from_prompts", "head": {"solver": "sgd"}}, "#", "one_recipe"),
        ({"validation": {"fraction": 0.9}}, "#/validation/fraction", "too_large"),
        ({"augment": {"crops": 17}}, "#/augment/crops", "too_large"),
        ({"backbone": "resnet18+resnet18"}, "#/backbone", "backbone_not_found"),
        ({"backbone": "resnet18+nowhere"}, "#/backbone", "backbone_not_found"),
    ],
)
def test_settings_that_cannot_be_are_refused_where_they_are(
    desk: Desk, changes: dict[str, Any], pointer: str, code: str
) -> None:
    answer = desk.node.http.post("/train-jobs", json={"dataset_id": made(desk), **changes})
    assert answer.status_code == 422, answer.text
    assert (answer.json()["errors"][0]["pointer"], answer.json()["errors"][0]["code"]) == (pointer, code)


def test_a_member_that_is_null_is_left_out() -> None:
    nothing = dict.fromkeys(("head", "validation", "early_stopping", "augment", "fine_tune"))
    request = TrainJobCreate.model_validate({"dataset_id": "a", "preset": "from_prompts", **nothing})
    assert request.preset == "from_prompts"
    assert TrainJobCreate.model_validate({"dataset_id": "a", "head": None, "optimizer": {"lr": 0.1}}).head is None


def test_validation_needs_a_class_with_two_images(desk: Desk) -> None:
    body = {"dataset_id": made(desk, train_per_class=1), "head": {"solver": "sweep"}}
    answer = desk.node.http.post("/train-jobs", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "validation_empty")


def test_a_node_without_clip_trains_without_that_baseline(desk: Desk) -> None:
    def fail(*_: object) -> float:
        raise RuntimeError("CLIP is broken")

    dataset_id = made(desk)
    desk.node.models.clip.finish = fail
    _, model = trained(desk, {"dataset_id": dataset_id, "epochs": 1})
    assert model["metrics"]["test"]["baselines"]["clip_zero_shot"] is None
    assert model["metrics"]["test"]["baselines"]["majority"] is not None


def test_names_without_prompts_need_the_preset(served: Serve) -> None:
    with served() as node:
        http: httpx.Client = node.http
        body = {"name": "d", "classes": [{"name": "fox"}, {"name": "dog"}], "train_per_class": 1, "test_per_class": 0}
        refused = http.post("/datasets", json=body)
        assert [one["pointer"] for one in refused.json()["errors"]] == ["#/classes/0/prompts", "#/classes/1/prompts"]
        assert http.post("/datasets", json={**body, "preset": "from_prompts"}).status_code == 202
