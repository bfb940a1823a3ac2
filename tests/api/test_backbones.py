"""`GET /backbones`, and backbones by name in `POST /train-jobs` and `/classify`."""

from collections.abc import Callable

import httpx
import pytest

from app.errors import Conflict
from app.jobs import record
from app.modelpacks.pack import PackError
from app.node.client import NodeClient
from app.node.protocol import FeatureBatch
from app.services.datasets.job import DatasetImages
from app.services.training.job import TrainJob
from app.storage.features import FeatureCache, view_names
from app.storage.layout import DataFolder
from testing.fake_jobs import run_job
from testing.fake_models import NUM_FEATURES, FakeSource, describe
from testing.uploads import create_empty, fill, picture
from testing.workbench import Workbench

LABELS = ("fox", "dog", "cat")


@pytest.fixture
def photo(bench: Workbench) -> FakeSource:
    source = FakeSource(describe("photo", trained_on="photographs", sha256="a" * 64, classes=LABELS))
    bench.models.backbones["photo"] = source
    return source


@pytest.fixture
def train(bench: Workbench) -> Callable[[str], None]:
    folder = DataFolder(bench.data_dir)
    images = DatasetImages(bench.db, folder, bench.client, chunk_size=3)
    handler = TrainJob(bench.db, folder, FeatureCache(folder.features), bench.client, images)

    def train(job_id: str) -> None:
        with bench.db.transaction() as session:
            record.begin(session, job_id)
        result = run_job(bench.db, job_id, handler)
        with bench.db.transaction() as session:
            record.finish(session, job_id, handler.on_end, completed=True, result=result)

    return train


def uploads(http: httpx.Client, name: str = "photos") -> str:
    created = create_empty(http, name)
    fill(http, created["id"])
    dataset_id: str = created["id"]
    return dataset_id


def start(http: httpx.Client, **fields: object) -> dict:
    answer = http.post("/train-jobs", json={"epochs": 1, **fields})
    assert answer.status_code == 202, answer.text
    return answer.json()


def listed(http: httpx.Client) -> dict[str, dict]:
    return {item["name"]: item for item in http.get("/backbones").json()["items"]}


def test_backbones_are_listed_with_what_is_known_of_them(bench: Workbench, photo: FakeSource) -> None:
    items = listed(bench.http)
    assert list(items) == ["resnet18", "clip", "photo"]
    assert (items["photo"]["state"], items["photo"]["images_per_s"]) == ("loadable", None)
    assert (items["photo"]["trained_on"], items["resnet18"]["trained_on"]) == ("photographs", "drawings")
    assert (items["photo"]["num_classes"], items["resnet18"]["num_classes"]) == (3, None)
    assert items["photo"]["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    assert bench.http.get("/readyz").status_code == 200

    answer = bench.http.post("/classify", files={"image": picture(1)}, data={"model": "photo"})
    assert answer.status_code == 200
    assert listed(bench.http)["photo"]["state"] == "ready"
    assert listed(bench.http)["photo"]["images_per_s"] > 0


def test_photo_classifies_with_its_own_labels(bench: Workbench, photo: FakeSource) -> None:
    answer = bench.http.post("/classify", files={"image": picture(1)}, data={"model": "photo", "top_k": "2"}).json()
    assert answer["model"] == {"id": None, "name": "photo", "revision": "a" * 12}
    assert [one["label"] for one in answer["predictions"]] in (["fox", "dog"], ["dog", "fox"])


def test_without_a_photo_backbone_the_name_is_unknown(bench: Workbench) -> None:
    answer = bench.http.post("/classify", files={"image": picture(1)}, data={"model": "photo"})
    assert (answer.status_code, answer.json()["code"]) == (422, "model_not_found")


def test_one_that_cannot_be_loaded_says_why_and_leaves_the_node_ready(bench: Workbench, photo: FakeSource) -> None:
    photo.fault = PackError("photo: the package is missing. Install it with pip.")
    answer = bench.http.post("/classify", files={"image": picture(1)}, data={"model": "photo"})
    assert (answer.status_code, answer.json()["code"]) == (503, "model_not_ready")
    assert int(answer.headers["retry-after"]) > 0
    assert listed(bench.http)["photo"]["detail"] == photo.fault.detail
    assert bench.http.get("/readyz").status_code == 200


def test_uploaded_images_are_trained_on_photo_and_generated_ones_on_the_packs_own(
    bench: Workbench, photo: FakeSource
) -> None:
    job = start(bench.http, dataset_id=uploads(bench.http))
    assert (job["spec"]["backbone"], job["spec"]["backbone_sha256"], job["warnings"]) == ("photo", "a" * 64, [])
    made = bench.make("drawn", train_per_class=2)
    job = start(bench.http, dataset_id=made["id"])
    assert (job["spec"]["backbone"], job["warnings"]) == ("resnet18", [])
    assert "warnings" not in job["spec"]


def test_photographs_on_a_backbone_that_was_trained_on_drawings_are_warned_of(
    bench: Workbench, photo: FakeSource
) -> None:
    dataset_id = uploads(bench.http)
    job = start(bench.http, dataset_id=dataset_id, backbone="resnet18")
    assert [warning["code"] for warning in job["warnings"]] == ["backbone_trained_on_drawings"]
    assert bench.http.get(f"/train-jobs/{job['id']}").json()["warnings"] == job["warnings"]


def test_an_unknown_backbone_is_refused_with_the_known_names(bench: Workbench, photo: FakeSource) -> None:
    dataset_id = uploads(bench.http)
    answer = bench.http.post("/train-jobs", json={"dataset_id": dataset_id, "backbone": "vgg"})
    [fault] = answer.json()["errors"]
    assert (answer.status_code, fault["code"], fault["pointer"]) == (422, "backbone_not_found", "#/backbone")
    assert "resnet18, clip, photo" in fault["detail"]
    for wrong in ("", "x" * 65, 3):
        assert bench.http.post("/train-jobs", json={"dataset_id": dataset_id, "backbone": wrong}).status_code == 422


@pytest.mark.parametrize("backbone", ["photo", "clip"])
def test_a_model_is_served_with_its_backbone_and_refused_without(
    bench: Workbench, photo: FakeSource, train: Callable[[str], None], backbone: str
) -> None:
    job = start(bench.http, dataset_id=uploads(bench.http), backbone=backbone, name="mine")
    train(job["id"])
    model = bench.http.get(f"/models/{job['id']}").json()
    assert model["backbone"] == backbone
    facts = model["lineage"]["backbone"]
    assert (facts["name"], facts["preprocessing"]["crop"]) == (backbone, 64)

    def classify() -> httpx.Response:
        return bench.http.post("/classify", files={"image": picture(1)}, data={"model": "mine"})

    assert classify().status_code == 200
    if backbone == "photo":
        photo.description = describe("photo", sha256="b" * 64)
        assert "other weights" in refused(classify())
        del bench.models.backbones["photo"]
        assert "not on this node" in refused(classify())


def refused(answer: httpx.Response) -> str:
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (409, "model_backbone_mismatch")
    assert "photo" in problem["detail"]
    detail: str = problem["detail"]
    return detail


def test_a_second_job_on_the_same_images_asks_the_engine_nothing(
    bench: Workbench, photo: FakeSource, train: Callable[[str], None]
) -> None:
    dataset_id = uploads(bench.http)
    train(start(bench.http, dataset_id=dataset_id)["id"])
    photo.fault = OSError("must not be loaded again")
    job = start(bench.http, dataset_id=dataset_id)
    train(job["id"])
    read = bench.http.get(f"/train-jobs/{job['id']}").json()
    assert read["progress"]["done"] == read["progress"]["total"] == 12 + 1


def test_a_batch_has_a_row_for_each_view_and_equal_seeds_give_equal_views(bench: Workbench, photo: FakeSource) -> None:
    client, views = bench.client, view_names(flip=True, num_crops=2)
    batch = FeatureBatch("photo", "a" * 64, views, [picture(number, size=(64, 48)) for number in range(70)])
    first = client.feature_batch(batch, keep_waiting=_never)
    assert first.shape == (70, 4, NUM_FEATURES)
    assert (first == client.feature_batch(batch, keep_waiting=_never)).all()
    assert abs(first[:, 0] - first[:, 1]).max() < 1e-6  # a mirror image has the same mean colour
    assert abs(first[:, 2] - first[:, 3]).max() > 1e-3


def test_a_batch_for_other_weights_is_refused(bench: Workbench, photo: FakeSource) -> None:
    with pytest.raises(Conflict) as refused:
        bench.client.feature_batch(FeatureBatch("photo", "0" * 64, ["plain"], [picture(1)]), keep_waiting=_never)
    assert refused.value.code == "backbone_changed"


def test_the_workers_client_asks_for_the_packs_backbone_by_default(bench: Workbench) -> None:
    client: NodeClient = bench.client
    assert client.backbone(keep_waiting=_never).name == "resnet18"


def _never() -> None:
    """Wait for nothing."""
