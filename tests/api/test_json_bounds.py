"""No JSON body holds a node up: what is too much is refused unread, what is large is read beside the event loop."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from testing.node import Node
from tests.unit.api.parsing.test_json_bodies import HOSTILE, largest_recipe

JSON = {"Content-Type": "application/json"}
LISTS = b"[" + b"[]," * 9_666_666 + b"[]]"


@pytest.fixture
def http(shared_node: Node) -> httpx.Client:
    return shared_node.http


@pytest.fixture(autouse=True)
def still_serves(http: httpx.Client) -> Iterator[None]:
    yield
    assert http.post("/generate", json={"prompt": "a fox", "num_inference_steps": 1}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/livez"),
        ("GET", "/datasets"),
        ("DELETE", "/datasets/none"),
        ("DELETE", "/generations/none"),
        ("POST", "/jobs/none/cancel"),
        ("POST", "/jobs/none/pause"),
        ("POST", "/jobs/none/retry"),
        ("POST", "/train-jobs/none/cancel"),
        ("POST", "/datasets/none/extend"),
        ("POST", "/datasets"),
        ("POST", "/train-jobs"),
        ("POST", "/generate"),
        ("POST", "/nowhere"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "a-key"}], ids=["plain", "key"])
def test_a_large_body_is_refused_unread_on_every_route(
    http: httpx.Client, method: str, path: str, headers: dict
) -> None:
    started_s = time.process_time()
    answer = http.request(method, path, content=LISTS, headers={**JSON, **headers})
    # What no route reads may as well be left alone.
    assert answer.status_code == 413 or path in ("/livez", "/nowhere"), answer.text
    assert answer.status_code < 500
    assert time.process_time() - started_s < 2  # client and node; parsing alone takes several


def test_a_small_body_where_none_is_read_is_no_fault(http: httpx.Client) -> None:
    assert http.post("/jobs/none/cancel", json={}).status_code == 404
    assert http.request("GET", "/datasets", json={"a": 1}).status_code == 200


@pytest.mark.parametrize("name", ["lists", "members", "depth", "empty strings", "zeros"])
@pytest.mark.parametrize("path", ["/datasets", "/train-jobs"])
def test_more_values_than_a_recipe_has_are_refused_before_parsing(http: httpx.Client, path: str, name: str) -> None:
    answer = http.post(path, content=HOSTILE[name], headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_values")


def test_a_fault_of_many_is_told_with_their_number_and_the_first_fifty(http: httpx.Client) -> None:
    unknown = {f"promt{k}": 1 for k in range(1_500)}
    problem = http.post("/generate", json={"prompt": "a fox", **unknown}).json()
    assert problem["detail"].startswith("1500 values are invalid: Field ")
    assert len(problem["errors"]) == 50
    assert problem["errors"][0] == {
        "pointer": "#/promt0", "detail": "This field does not exist. Did you mean prompt?", "code": "unknown_field",
    }  # fmt: skip


def test_of_very_many_faults_the_number_alone_is_told(http: httpx.Client) -> None:
    recipe: dict[str, Any] = {
        **largest_recipe(),
        "classes": [{"name": f"c{i}", "prompts": [1] * 100} for i in range(1_000)],
    }
    problem = http.post("/datasets", json=recipe).json()
    assert problem["detail"] == "100000 values are invalid."
    assert [error["code"] for error in problem["errors"]] == ["too_many_faults"]


def test_unknown_fields_called_like_places_are_told_in_the_body(http: httpx.Client) -> None:
    problem = http.post("/generate", json={"prompt": "a fox", "query": 1}).json()
    assert [error["pointer"] for error in problem["errors"]] == ["#/query"]


def test_the_largest_recipe_is_taken(http: httpx.Client) -> None:
    recipe: dict[str, Any] = {**largest_recipe(), "train_per_class": 1, "test_per_class": 0}
    recipe["classes"][0]["prompts"] = [f"{{v{k}}} a, b" for k in range(8)]
    answer = http.post("/datasets?dry_run=true", json=recipe)
    assert answer.status_code == 200, answer.text[:500]
    assert answer.json()["num_images"] == 1_000


def test_the_event_loop_goes_on_while_hostile_bodies_are_handled(shared_node: Node) -> None:
    recipe = json.dumps({**largest_recipe(), "train_per_class": 1}).encode()
    hostile = [LISTS, HOSTILE["lists"], HOSTILE["members"], HOSTILE["depth"], recipe]
    stop = threading.Event()

    def attack(body: bytes) -> None:
        with httpx.Client(base_url=shared_node.http.base_url, timeout=60) as http:
            while not stop.is_set():
                http.post("/datasets?dry_run=true", content=body, headers=JSON)
                http.post("/generate", content=body, headers=JSON)

    attackers = [threading.Thread(target=attack, args=[body]) for body in hostile]
    for attacker in attackers:
        attacker.start()
    try:
        # Parsing any of the larger ones on the loop, or at all, would take longer than this.
        with httpx.Client(base_url=shared_node.http.base_url, timeout=5) as http:
            assert all(http.get("/livez").status_code == 200 for _ in range(20))
    finally:
        stop.set()
        for attacker in attackers:
            attacker.join()
