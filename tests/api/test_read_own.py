"""`FOXHOUND_READ_OWN`: a key sees what was made with it; everything else is as if it did not exist."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from app.access.caller import Scope
from app.api.access.scopes import NEEDS
from app.db.base import new_id
from app.db.models import Job, TrainedModel
from app.db.session import Database
from app.services.evaluation.subject import EvaluatedImage
from app.storage.layout import DataFolder
from testing.api_keys import client_of, new_key
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.trained_models import add_evaluation, add_model
from testing.uploads import CLASSES, create_empty, fill, picture

# An answer repeats the path and the request's own id.
OF_THE_REQUEST = ("instance", "request_id")
LISTS = ("/generations", "/images", "/datasets", "/jobs", "/train-jobs", "/models")


@dataclass
class House:
    """A node, three clients of it, and what Alice has made, by the name that routes give its id."""

    node: Node
    alice: httpx.Client
    bob: httpx.Client
    admin: httpx.Client
    ids: dict[str, str]


@pytest.fixture
def house(tmp_path: Path, database_url: str) -> Iterator[House]:
    alice, bob = new_key(database_url, "alice"), new_key(database_url, "bob")
    admin = new_key(database_url, "admin", Scope.ADMIN)
    settings = make_settings(tmp_path / "data", database_url, read_own=True)
    db = Database(database_url)
    with (
        serve(settings, FakeModels()) as node,
        client_of(node, alice.key) as hers,
        client_of(node, bob.key) as his,
        client_of(node, admin.key) as theirs,
    ):
        yield House(node, hers, his, theirs, made_by(hers, alice.id, db, settings.data_dir))
    db.close()


def made_by(http: httpx.Client, key_id: str, db: Database, data_dir: Path) -> dict[str, str]:
    """Make one object of each kind, and return their ids."""
    dataset = create_empty(http, "alices")
    fill(http, dataset["id"])
    generation = http.post("/generate", json={"prompt": "a fox", "seed": 1, "num_inference_steps": 1}).json()
    folder = DataFolder(data_dir)
    model_id = add_model(db, folder, CLASSES, dataset_id=dataset["id"], name="alices-model")
    images = http.get(f"/datasets/{dataset['id']}/images", params={"split": "test"}).json()["items"]
    rows = [EvaluatedImage(one["id"], "real", CLASSES.index(one["class_name"]), None) for one in images]
    evaluation_id = add_evaluation(
        db, model_id, rows, [row.class_index for row in rows], CLASSES, dataset_id=dataset["id"], job_id=model_id
    )
    with db.transaction() as session:
        for table in (Job, TrainedModel):
            session.execute(update(table).where(table.id == model_id).values(key_id=key_id))
    return {
        "dataset_id": dataset["id"],
        "dataset_image_id": images[0]["id"],
        "image_id": generation["images"][0]["id"],
        "generation_id": generation["id"],
        "model_id": model_id,
        "job_id": model_id,
        "evaluation_id": evaluation_id,
        "index": "0",
        "split": "train",
        "picture": "accuracy",
    }


def told(answer: httpx.Response) -> tuple[int, Any]:
    """Return what an answer says, without what repeats the request."""
    body = answer.json() if answer.headers["content-type"].endswith("json") else answer.content
    if isinstance(body, dict):
        body = {name: value for name, value in body.items() if name not in OF_THE_REQUEST}
    return answer.status_code, body


def with_unknown_ids(ids: dict[str, str]) -> dict[str, str]:
    return {name: new_id() if name.endswith("_id") else value for name, value in ids.items()}


def filled(path: str, ids: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: ids[match[1]], path)


def content_of(path: str, ids: dict[str, str]) -> dict[str, Any]:
    """Return a valid body or query for a route."""
    contents: dict[str, dict[str, Any]] = {
        "/datasets/{dataset_id}/extend": {"json": {"train_per_class": 1, "test_per_class": 0}},
        "/datasets/{dataset_id}/images": {
            "data": {"class_name": CLASSES[0], "split": "train"},
            "files": [("files", ("a.png", picture(5)))],
        },
        "/models/{model_id}/evaluations": {"json": {"dataset_id": ids["dataset_id"]}},
        "/models/{model_id}/export": {"params": {"format": "safetensors"}},
    }
    return contents.get(path, {})


def test_every_route_answers_for_another_keys_object_as_for_an_unknown_one(house: House) -> None:
    # Keys belong to no key; only an admin reaches them.
    asked = [(method, path) for method, path in NEEDS if "_id}" in path and "{key_id}" not in path]
    assert len(asked) > 25
    for method, path in asked:
        content = content_of(path, house.ids) if method == "POST" or "export" in path else {}
        foreign = house.bob.request(method, filled(path, house.ids), **content)
        unknown = house.bob.request(method, filled(path, with_unknown_ids(house.ids)), **content)
        assert told(foreign) == told(unknown), (method, path)
        assert foreign.status_code == 404, (method, path)
    for path in ("/datasets/{dataset_id}", "/models/{model_id}", "/jobs/{job_id}", "/generations/{generation_id}"):
        for client in (house.alice, house.admin):
            assert client.get(filled(path, house.ids)).status_code == 200, path


def test_a_fault_in_the_body_does_not_tell_whether_the_object_exists(house: House) -> None:
    for path in ("/datasets/{dataset_id}/extend", "/models/{model_id}/evaluations"):
        foreign, unknown = (
            house.bob.post(filled(path, ids), json={"nonsense": 1}) for ids in (house.ids, with_unknown_ids(house.ids))
        )
        assert told(foreign) == told(unknown), path


def test_lists_have_the_own_objects_alone(house: House) -> None:
    for path in LISTS:
        hers, his, theirs = (one.get(path).json()["items"] for one in (house.alice, house.bob, house.admin))
        assert hers == theirs != [], path
        assert his == [], path
    assert house.bob.get("/images", params={"dataset_id": house.ids["dataset_id"]}).json()["items"] == []


def test_a_class_of_another_keys_dataset_is_unknown(house: House) -> None:
    foreign, unknown = (
        house.bob.get("/images", params={"dataset_id": dataset_id, "class": "dog"})
        for dataset_id in (house.ids["dataset_id"], new_id())
    )
    assert told(foreign) == told(unknown)
    assert foreign.status_code == 422


def test_pages_follow_each_other_through_the_own_objects(house: House) -> None:
    for client, name in ((house.bob, "b"), (house.alice, "a")):
        for number in range(3):
            create_empty(client, f"{name}{number}")
    first = house.bob.get("/datasets", params={"limit": 2}).json()
    second = house.bob.get("/datasets", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["name"] for page in (first, second) for item in page["items"]] == ["b2", "b1", "b0"]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("image", ["image_id", "dataset_image_id"])
def test_another_keys_image_cannot_be_judged(house: House, image: str) -> None:
    for path, more in (("/classify", {}), ("/clip-score", {"labels": ["fox", "dog"]})):
        for body in ({"image_id": house.ids[image]}, {"image_ids": [house.ids[image]]}):
            swapped = {name: [new_id()] if isinstance(value, list) else new_id() for name, value in body.items()}
            foreign, unknown = (house.bob.post(path, json={**one, **more}) for one in (body, swapped))
            assert told(foreign) == told(unknown), (path, body)
            assert foreign.json()["code"] == "image_not_found"
            assert house.alice.post(path, json={**body, **more}).status_code == 200


def test_another_keys_model_cannot_be_used(house: House) -> None:
    image = house.bob.post("/generate", json={"prompt": "a fox", "num_inference_steps": 1}).json()["images"][0]
    for model in (house.ids["model_id"], "alices-model"):
        for more in ({}, {"explain": True}):
            foreign = house.bob.post("/classify", json={"image_id": image["id"], "model": model, **more})
            unknown = house.bob.post("/classify", json={"image_id": image["id"], "model": "nobodys", **more})
            assert told(foreign) == told(unknown)
            assert foreign.json()["code"] == "model_not_found"
    hers = {"image_id": house.ids["image_id"], "model": "alices-model"}
    assert house.alice.post("/classify", json=hers).status_code == 200
    compared = [
        house.bob.get("/models/compare", params={"ids": f"{one},{new_id()}"}) for one in (house.ids["model_id"], "a")
    ]
    assert told(compared[0]) == told(compared[1])


def test_another_keys_dataset_is_neither_trained_on_nor_evaluated_on(house: House, database_url: str) -> None:
    mine = create_empty(house.bob, "bobs")
    fill(house.bob, mine["id"])
    body = {"epochs": 1}
    foreign, unknown = (
        house.bob.post("/train-jobs", json={**body, "dataset_id": one}) for one in (house.ids["dataset_id"], new_id())
    )
    assert told(foreign) == told(unknown)
    assert foreign.json()["code"] == "dataset_not_found"
    own = house.bob.post("/train-jobs", json={**body, "dataset_id": mine["id"]})
    assert own.status_code == 202, own.text
    assert [item["id"] for item in house.bob.get("/train-jobs").json()["items"]] == [own.json()["id"]]
    db = Database(database_url)
    with db.transaction() as session:
        key_id = session.get_one(Job, own.json()["id"]).key_id
        session.execute(update(TrainedModel).values(key_id=key_id))
    db.close()
    path = f"/models/{house.ids['model_id']}/evaluations"
    foreign, unknown = (house.bob.post(path, json={"dataset_id": one}) for one in (house.ids["dataset_id"], new_id()))
    assert told(foreign) == told(unknown)
    assert foreign.json()["code"] == "dataset_not_found"


def test_a_taken_name_does_not_tell_by_whose_dataset(house: House) -> None:
    body = {"name": "alices", "classes": [{"name": one, "prompts": [one]} for one in ("fox", "dog")]}
    for params in ({}, {"dry_run": "true"}):
        his, hers = (one.post("/datasets", json=body, params=params) for one in (house.bob, house.alice))
        assert his.json()["code"] == hers.json()["code"] == "dataset_name_taken"
        assert "dataset_id" not in his.json()
        assert hers.json()["dataset_id"] == house.ids["dataset_id"]


def test_an_idempotency_key_of_another_caller_is_a_new_one(house: House) -> None:
    body, headers = {"prompt": "a fox", "num_inference_steps": 1}, {"Idempotency-Key": "k", "Prefer": "respond-async"}
    answers = [one.post("/generate", json=body, headers=headers) for one in (house.alice, house.bob, house.alice)]
    assert [answer.status_code for answer in answers] == [202, 202, 202]
    assert ["idempotency-replayed" in answer.headers for answer in answers] == [False, False, True]
    assert answers[0].json()["id"] == answers[2].json()["id"] != answers[1].json()["id"]
    other = house.bob.post("/generate", json={**body, "seed": 3}, headers=headers)
    assert other.json()["code"] == "idempotency_key_reused"


def test_without_the_setting_every_reader_sees_all(tmp_path: Path, database_url: str) -> None:
    alice, bob = new_key(database_url, "alice"), new_key(database_url, "bob")
    with (
        serve(make_settings(tmp_path / "data", database_url), FakeModels()) as node,
        client_of(node, alice.key) as hers,
        client_of(node, bob.key) as his,
    ):
        dataset = create_empty(hers)
        assert his.get(f"/datasets/{dataset['id']}").status_code == 200
        assert [item["id"] for item in his.get("/datasets").json()["items"]] == [dataset["id"]]


def test_whoever_needs_no_key_sees_what_was_made_without_one(tmp_path: Path, database_url: str) -> None:
    alice = new_key(database_url, "alice")
    settings = make_settings(tmp_path / "data", database_url, read_own=True, allow_anonymous=True)
    with serve(settings, FakeModels()) as node, client_of(node, alice.key) as hers:
        made = [create_empty(http, name)["name"] for http, name in ((hers, "hers"), (node.http, "anybodys"))]
        seen = [[item["name"] for item in http.get("/datasets").json()["items"]] for http in (hers, node.http)]
    assert seen == [[name] for name in made]
