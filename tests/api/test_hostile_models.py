"""Faulty and hostile requests about backbones, models, evaluations, comparisons, exports, cards, reports and heat maps.

After each of them the next valid request is answered; no answer is a 500. Cases 95 to 104 of docs/hostile-input.md.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.db.base import new_id
from app.db.session import Database
from app.storage.layout import DataFolder
from testing.fake_models import FakeSource, describe
from testing.node import Node
from testing.trained_models import add_job, add_model
from testing.uploads import CLASSES, create_empty, fill, picture

JSON = {"Content-Type": "application/json"}
# In JSON; the last one has more digits than Python reads.
NO_NUMBERS = ('"1"', '"NaN"', "null", "true", "[1]", "{}", "NaN", "Infinity", "-Infinity", "1e400", "-1e400")
NO_COUNTS = (*NO_NUMBERS, "-1", "1.5", "1" + "0" * 400, "1" + "0" * 5_000)
NO_IDS = (
    "nothing",
    "-1",
    "NaN",
    "1e400",
    "%00",
    "%F0%9F%A6%8A",
    "..%2F..%2Fetc",
    "a" * 5_000,
    "'; DROP TABLE models--",
)


@pytest.fixture
def db(node: Node) -> Iterator[Database]:
    database = Database(node.settings.resolved_database_url)
    yield database
    database.close()


@pytest.fixture
def model(node: Node, db: Database) -> str:
    node.models.backbones["photo"] = FakeSource(describe("photo", trained_on="photographs", classes=("a", "b", "c")))
    return add_model(db, DataFolder(node.settings.data_dir), CLASSES, name="mine")


@pytest.fixture
def photos(http: httpx.Client) -> str:
    dataset_id: str = create_empty(http, "photos")["id"]
    fill(http, dataset_id, num_train=2, num_test=1)
    return dataset_id


def send(http: httpx.Client, path: str, **members: str) -> httpx.Response:
    """Send members whose values are JSON texts."""
    body = ", ".join(f'"{name}": {value}' for name, value in members.items())
    return http.post(path, content=f"{{{body}}}".encode(), headers=JSON)


def assert_refused(answer: httpx.Response, *statuses: int) -> None:
    problem = answer.json()
    assert answer.status_code in statuses, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["detail"][0].isupper()
    assert problem["detail"].endswith(".")


def assert_serves(http: httpx.Client, model: str) -> None:
    answer = http.post("/classify", files={"image": picture(1)}, data={"model": model})
    assert answer.status_code == 200, answer.text


def test_no_id_and_ids_of_other_kinds_are_404(http: httpx.Client, db: Database, model: str, photos: str) -> None:
    running = new_id()
    with db.transaction() as session:
        add_job(session, running, status="running")
    for wrong in (*NO_IDS, photos, running, "photos", "not-mine", new_id()):
        for path in (
            f"/models/{wrong}",
            f"/models/{wrong}/export?format=onnx",
            f"/models/{wrong}/card",
            f"/models/{wrong}/weights",
            f"/models/{wrong}/evaluations",
            f"/models/{model}/evaluations/{wrong}",
        ):
            assert_refused(http.get(path), 404)
        assert_refused(send(http, f"/models/{wrong}/evaluations", dataset_id=json.dumps(photos)), 404)
        if wrong != running:  # which is a train job, without a report as yet
            assert_refused(http.get(f"/train-jobs/{wrong}/report"), 404)
            assert_refused(http.get(f"/train-jobs/{wrong}/report/curves.png"), 404, 422)
    assert_refused(http.get(f"/train-jobs/{running}/report"), 409)
    assert_serves(http, model)


def test_bodies_of_evaluations_are_checked(http: httpx.Client, model: str, photos: str) -> None:
    path = f"/models/{model}/evaluations"
    for value in (*NO_COUNTS, '""', '"../x"', '"\\u0000"', '"\\ud800"', json.dumps("a" * 100_000), json.dumps(model)):
        assert_refused(send(http, path, dataset_id=value), 400, 413, 422)
    for value in (*NO_COUNTS, '"TRAIN"', '""'):
        assert_refused(send(http, path, dataset_id=json.dumps(photos), split=value), 400, 422)
    assert_refused(send(http, path, dataset_id=json.dumps(photos), model_id='"x"'), 422)
    assert http.get(path).json()["items"] == []
    assert send(http, path, dataset_id=json.dumps(photos), split='"test"').status_code == 202


def test_lists_of_evaluations_are_pages(http: httpx.Client, model: str) -> None:
    for query in ("limit=0", "limit=-1", "limit=101", "limit=1e400", "limit=NaN", f"limit={'9' * 400}", "limit="):
        assert_refused(http.get(f"/models/{model}/evaluations?{query}"), 422)
    for query in ("cursor=x", "cursor=%00", f"cursor={'A' * 10_000}"):
        assert_refused(http.get(f"/models/{model}/evaluations?{query}"), 400, 422)
    # The list of backbones has no pages and no parameters.
    assert_refused(http.get("/backbones?limit=0"), 422)
    names = [one["name"] for one in http.get("/backbones").json()["items"]]
    assert names == ["resnet18", "clip", "photo"]


def test_ten_thousand_ids_are_not_compared(http: httpx.Client, model: str, photos: str) -> None:
    for ids in ("", ",", ",,", model, f"{model},{model}", f"{model},", "%00,%00", ",".join(map(str, range(11)))):
        assert_refused(http.get(f"/models/compare?ids={ids}"), 422)
    for ids in (",".join("x" * 10_000), ",".join(f"m{k}" for k in range(10_000))):
        assert_refused(http.get(f"/models/compare?ids={ids}"), 422, 431)
    for other in (photos, "mine", "NaN", new_id(), "\u0665"):  # a name is no id, and an Arabic digit is none either
        assert_refused(http.get("/models/compare", params={"ids": f"{model},{other}"}), 422)
    assert_refused(http.get("/models/compare"), 422)
    assert_serves(http, model)


def test_formats_that_do_not_exist_are_422(http: httpx.Client, model: str) -> None:
    for value in ("", "pickle", "ONNX", "torchscript", "onnx,bundle", "../x", "%00", "1", "a" * 20_000):
        answer = http.get(f"/models/{model}/export?format={value}")
        assert_refused(answer, 422)
        assert answer.json()["errors"][0]["pointer"] == "#query/format"
    assert http.get(f"/models/{model}/export?format=onnx&format=safetensors").status_code == 200  # the last one counts


def test_a_model_whose_weights_are_cut_off_is_410_everywhere(
    node: Node, http: httpx.Client, model: str, photos: str
) -> None:
    path = DataFolder(node.settings.data_dir).locate(DataFolder(node.settings.data_dir).model_path(model))
    whole = path.read_bytes()
    for data in (whole[:-1], whole[:8], b"", whole[:-1] + b"?"):
        path.write_bytes(data)
        answers = [http.get(f"/models/{model}/{what}") for what in ("export?format=bundle", "card", "weights")]
        for explain in ("false", "true"):
            form = {"model": model, "explain": explain}
            answers.append(http.post("/classify", files={"image": picture(1)}, data=form))
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (410, "model_file_damaged"), answer.url
    assert http.get(f"/models/{model}").status_code == 200
    path.write_bytes(whole)
    assert_serves(http, model)


def test_a_heat_map_is_asked_for_by_true_and_for_one_image(http: httpx.Client, model: str) -> None:
    image = json.dumps(base64.b64encode(picture(1)).decode())
    for value in ('"true"', "1", "null", "[true]", "NaN", "1e400"):
        assert_refused(send(http, "/classify", image_b64=image, model=json.dumps(model), explain=value), 422)
    for value in (*NO_COUNTS, "0"):
        assert_refused(send(http, "/classify", image_b64=image, explain="true", top_k=value), 400, 422)
    for name in ("nothing", f"model:{model}", "resnet18", "clip", "resnet18+clip", "../photo"):
        assert_refused(send(http, "/classify", image_b64=image, explain="true", model=json.dumps(name)), 422)
    assert_refused(send(http, "/classify", image_b64='"AAAA"', explain="true"), 415)
    assert_refused(send(http, "/classify", image_ids="[]", explain="true"), 422)
    assert send(http, "/classify", image_b64=image, explain="true", model=json.dumps(model)).status_code == 200


HEAD_NUMBERS = ("lr", "momentum", "weight_decay", "c", "alpha", "label_smoothing")


def test_no_number_of_a_training_is_taken_from_anything_else(http: httpx.Client, photos: str) -> None:
    dataset = {"dataset_id": json.dumps(photos)}
    bodies: list[dict[str, Any]] = []
    for value in NO_NUMBERS:
        bodies += [{"head": f'{{"solver": "adamw", "{name}": {value}}}'} for name in HEAD_NUMBERS]
        bodies += [{"optimizer": f'{{"lr": {value}}}'}, {"validation": f'{{"fraction": {value}}}'}]
    for value in NO_COUNTS:
        bodies += [{name: value} for name in ("epochs", "batch_size", "seed")]
        bodies += [{"head": f'{{"solver": "sgd", "warmup_epochs": {value}}}'}, {"augment": f'{{"crops": {value}}}'}]
        bodies += [{"early_stopping": f'{{"patience": {value}}}'}, {"fine_tune": value if value != "null" else "1"}]
    for body in bodies:
        assert_refused(send(http, "/train-jobs", **dataset, **body), 400, 422)
    for value in ("-1", "1e300", "-1e-300"):
        for name in ("lr", "c", "alpha"):
            head = f'{{"solver": "sgd", "{name}": {value}}}'
            assert_refused(send(http, "/train-jobs", **dataset, head=head), 422)
    for value in ("-0.1", "0", "1", "1e9"):
        assert_refused(send(http, "/train-jobs", **dataset, validation=f'{{"fraction": {value}}}'), 422)
    assert http.get("/train-jobs").json()["items"] == []


def test_no_backbone_is_a_path_or_a_repository(http: httpx.Client, photos: str) -> None:
    for name in ("", "../photo", "hf-hub:timm/x", "local-dir:/etc", "https://example.org", "+", "clip+", "clip+clip",
                 "resnet18+photo+clip+a+b", "model:x", "photo\u0000", "a" * 65, "PHOTO"):  # fmt: skip
        assert_refused(send(http, "/train-jobs", dataset_id=json.dumps(photos), backbone=json.dumps(name)), 422)
    for value in NO_NUMBERS:
        if value != "null":
            backbone = value if not value.startswith('"') else f"[{value}]"
            assert_refused(send(http, "/train-jobs", dataset_id=json.dumps(photos), backbone=backbone), 400, 422)


def test_a_report_is_a_page_or_json(http: httpx.Client, model: str) -> None:
    path = f"/train-jobs/{model}/report"
    for accept in ("image/png", "nonsense", "text", "a" * 501):
        assert_refused(http.get(path, headers={"Accept": accept}), 406, 422)
    for accept in ("", "*/*", "text/html;q=1e400", "text/html;q=NaN, application/json", "TEXT/HTML"):
        answer = http.get(path, headers={"Accept": accept})
        assert answer.status_code in (200, 406), (accept, answer.text)
    for name in ("nothing", "%00", "..%2Fcurves", "curves.png"):
        assert_refused(http.get(f"{path}/{name}.png"), 404, 422)
