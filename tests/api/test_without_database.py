"""A database or storage that is away is told as that by every route: never as something that does not exist."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access.caller import Scope
from testing.api_keys import client_of, new_key
from testing.fake_models import FakeModels
from testing.namespaces import may_do, run
from testing.node import Node, make_settings, serve
from testing.outages import Proxy, proxied
from testing.uploads import CLASSES, create_empty, fill, picture

# Answered without the database, or by several codes.
WITHOUT = {
    "/",
    "/livez",
    "/readyz",
    "/metrics",
    "/capabilities",
    "/backbones",
    "/docs/errors",
    "/docs/errors/{code}",
    "/classify/files",
    "/clip-score/files",
    "/keys",  # these two need an admin's key
    "/keys/{key_id}",
    "/generate/events",  # begins before it records anything; an event tells what failed
}
GENERATE = {"prompt": "a fox", "num_inference_steps": 1}

FOX = {"name": "fox", "prompts": ["a fox"]}
DATASET = {"name": "other", "classes": [FOX, {"name": "dog", "prompts": ["a dog"]}]}


@pytest.fixture
def way(postgres_url: str) -> Iterator[Proxy]:
    with proxied(postgres_url) as proxy:
        yield proxy


@pytest.fixture
def reached(way: Proxy, tmp_path: Path) -> Iterator[Node]:
    """A node whose way to its database can be cut."""
    with serve(make_settings(tmp_path / "data", way.url), FakeModels()) as node:
        yield node


@pytest.fixture
def known(reached: Node) -> dict[str, str]:
    """The id of one thing of each kind, by the name that routes give it."""
    http = reached.http
    dataset = create_empty(http)
    fill(http, dataset["id"])
    generation = http.post("/generate", json={"prompt": "a fox", "seed": 1, "num_inference_steps": 1}).json()
    train_job = http.post("/train-jobs", json={"dataset_id": dataset["id"], "epochs": 1}).json()
    return {
        "generation_id": generation["id"],
        "image_id": generation["images"][0]["id"],
        "dataset_id": dataset["id"],
        "job_id": train_job["id"],
        "model_id": train_job["id"],
        "evaluation_id": train_job["id"],
        "index": "0",
        "split": "train",
        "picture": "accuracy",
    }


def bodies(known: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """What is sent to each route that takes a body: what is right while the database is there."""
    by_id: list[dict[str, Any]] = [{"image_id": known["image_id"]}, {"image_ids": [known["image_id"]]}]
    upload = {"data": {"class_name": CLASSES[0], "split": "train"}, "files": [("files", ("a.png", picture(99)))]}
    return {
        **{path: [{"json": GENERATE}] for path in ("/generate", "/generate/image")},
        "/classify": [{"json": ids} for ids in (*by_id, {**by_id[0], "model": "fox-1"})],
        "/clip-score": [{"json": {**ids, "labels": ["fox", "dog"]}} for ids in by_id],
        "/datasets": [{"json": DATASET}, {"json": DATASET, "headers": {"Idempotency-Key": "one"}}],
        "/datasets/{dataset_id}/extend": [{"json": {"train_per_class": 9, "test_per_class": 9}}],
        "/datasets/{dataset_id}/images": [upload],
        "/datasets/{dataset_id}/images/{image_id}": [{"json": {"review": "accepted"}}],
        "/generations/{generation_id}/repeat": [{"json": {}}],
        "/models/{model_id}/evaluations": [{"json": {"dataset_id": known["dataset_id"]}}],
        "/train-jobs": [{"json": {"dataset_id": known["dataset_id"], "epochs": 1}}, {"json": {"dataset": DATASET}}],
    }


def queries(known: dict[str, str]) -> dict[str, dict[str, str]]:
    """What a route needs in its query."""
    ids = f"{known['model_id']},{known['dataset_id']}"
    return {"/models/compare": {"ids": ids}, "/models/{model_id}/export": {"format": "bundle"}}


def requests(http: httpx.Client, known: dict[str, str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give method, path and content of a request of every route."""
    described = http.get("/openapi.json").json()["paths"]
    sent, asked = bodies(known), queries(known)
    for path, methods in described.items():
        if path in WITHOUT:
            continue
        filled = re.sub(r"\{(\w+)\}", lambda match: known[match[1]], path)
        for method, operation in methods.items():
            contents = sent[path] if "requestBody" in operation else [{"params": asked[path]} if path in asked else {}]
            yield from ((method, filled, content) for content in contents)


def test_every_route_tells_that_the_database_is_away(way: Proxy, reached: Node, known: dict[str, str]) -> None:
    asked = list(requests(reached.http, known))
    assert len(asked) > 30
    way.cut()
    told: dict[str, tuple[int, str]] = {}
    for method, path, content in asked:
        answer = reached.http.request(method, path, **content)
        is_right = answer.headers.get("content-type") == "application/problem+json" and "retry-after" in answer.headers
        if (answer.status_code, is_right) != (503, True) or answer.json()["code"] != "database_unavailable":
            told[f"{method} {path} {sorted(content)}"] = (answer.status_code, answer.text[:200])
    assert told == {}
    way.mend()
    assert reached.http.get(f"/images/{known['image_id']}").status_code == 200


def test_routes_of_keys_tell_that_the_database_is_away(way: Proxy, postgres_url: str, tmp_path: Path) -> None:
    admin = new_key(postgres_url, "admin", Scope.ADMIN)
    a_key = {"name": "alice", "scopes": ["read"]}
    settings = make_settings(tmp_path / "data", way.url)
    with serve(settings, FakeModels()) as node, client_of(node, admin.key) as http:
        one = f"/keys/{http.post('/keys', json=a_key).json()['id']}"
        way.cut()
        answers = [
            http.get("/keys"),
            http.post("/keys", json={**a_key, "name": "bob"}),
            http.get(one),
            http.patch(one, json={"limits": {}}),
            http.delete(one),
        ]
        told = {(answer.status_code, answer.json()["code"]) for answer in answers}
        assert told == {(503, "database_unavailable")}
        way.mend()
        assert http.get(one).json()["state"] == "active"


def test_an_image_that_cannot_be_read_is_no_image_that_is_not_there(node: Node) -> None:
    """Its file is replaced by one whose reading fails, as on a broken disk."""
    made = node.http.post("/generate", json={"prompt": "a fox", "num_inference_steps": 1}).json()["images"][0]
    [path] = node.settings.data_dir.glob(f"images/*/{made['id']}.*")
    may_do("mount", "--bind", "/proc/self/mem", str(path))
    try:
        for path_of, more in (("/classify", {}), ("/clip-score", {"labels": ["fox", "dog"]})):
            answer = node.http.post(path_of, json={"image_id": made["id"], **more})
            assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
            assert int(answer.headers["retry-after"]) >= 1
    finally:
        run("umount", "--lazy", str(path))
