"""Callers with bounds, on a real node with each database: what they are told, and that others notice nothing."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access.caller import Scope, Shares
from app.access.keys import create_key, limit_key
from app.db.session import Database
from testing.api_keys import client_of
from testing.fake_models import BROKEN_PROMPT, FakeModels
from testing.node import Node, make_settings, serve
from testing.uploads import create_empty, picture, upload
from testing.waiting import wait_until

SMALL = {"prompt": "a fox", "seed": 1, "num_inference_steps": 2, "width": 64, "height": 64}
PIXEL_STEPS = 2 * 64 * 64


@dataclass
class House:
    """A node, its database, and clients by the name of their key."""

    node: Node
    db: Database
    clients: dict[str, httpx.Client]

    def add(self, name: str, **shares: int) -> httpx.Client:
        new = create_key(self.db, name, [s for s in Scope if s is not Scope.ADMIN], shares=Shares(**shares))
        assert new is not None
        return self.clients.setdefault(name, httpx.Client(
            base_url=self.node.http.base_url, timeout=30, headers={"X-API-Key": new.key}
        ))  # fmt: skip


@pytest.fixture
def house(tmp_path: Path, database_url: str) -> Iterator[House]:
    db = Database(database_url)
    create_key(db, "first", [Scope.READ])  # a node that starts without a key is open until it learns of the first
    with serve(make_settings(tmp_path / "data", database_url, caller_stored_mb=1_000), FakeModels()) as node:
        house = House(node, db, {})
        yield house
        for http in house.clients.values():
            http.close()
    db.close()


def generate(http: httpx.Client, **changes: Any) -> httpx.Response:
    return http.post("/generate", json={**SMALL, **changes})


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


def test_requests_a_minute_are_told_with_each_answer_and_refused_beyond(house: House) -> None:
    few, other = house.add("few", requests_per_minute=2), house.add("other")
    answers = [few.get("/models") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["RateLimit-Policy"] for answer in answers] == ['"requests";q=2;w=60'] * 3
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == ["r=1", "r=0", "r=0"]
    assert code_of(answers[-1]) == (429, "rate_limited")
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert few.get("/livez").status_code == 200
    assert "RateLimit" not in other.get("/models").headers


def test_requests_and_images_at_once_are_bounded_for_each_caller(house: House) -> None:
    one, images, other = (
        house.add("one", concurrent_requests=1),
        house.add("images", concurrent_images=2),
        house.add("other"),
    )
    gate = house.node.models.diffusion.gate
    gate.clear()
    as_events: Any = {"headers": {"Accept": "text/event-stream"}}
    with (
        one.stream("POST", "/generate", json=SMALL, **as_events) as first,
        images.stream("POST", "/generate", json={**SMALL, "num_images_per_prompt": 2}, **as_events) as second,
    ):
        events = [answer.iter_lines() for answer in (first, second)]
        assert all(next(lines) for lines in events)  # both are being drawn
        assert code_of(generate(images)) == (429, "rate_limited")
        assert code_of(one.get("/models")) == (429, "rate_limited")
        assert int(one.get("/models").headers["Retry-After"]) >= 1
        assert other.get("/models").status_code == 200
        assert code_of(generate(images, num_images_per_prompt=3)) == (422, "too_many_images")
        gate.set()
        assert all(list(lines) for lines in events)  # the other events, to the end
    wait_until(lambda: one.get("/models").status_code == 200)
    assert (one.get("/models").status_code, generate(images).status_code) == (200, 200)


def test_pixel_steps_of_a_day_are_charged_and_given_back_where_nothing_was_drawn(house: House) -> None:
    mine, other = house.add("mine", pixel_steps_per_day=2 * PIXEL_STEPS), house.add("other")
    assert generate(mine).status_code == 200
    assert generate(mine, prompt=BROKEN_PROMPT).status_code == 500  # costs nothing
    assert generate(mine).status_code == 200
    over = generate(mine)
    assert code_of(over) == (429, "quota_exceeded")
    assert int(over.headers["Retry-After"]) <= 86_400
    assert over.headers["RateLimit"].startswith('"pixel-steps";r=0;t=')
    assert mine.get("/generations").status_code == 200
    assert generate(other).status_code == 200
    limit_key(house.db, "mine", Shares(pixel_steps_per_day=3 * PIXEL_STEPS))
    wait_until(lambda: generate(mine).status_code == 200)


def test_a_job_is_charged_when_it_is_accepted_and_gives_back_what_it_does_not_do(house: House) -> None:
    mine = house.add("mine", pixel_steps_per_day=4 * PIXEL_STEPS)
    generation = {"num_inference_steps": 2, "width": 64, "height": 64}
    body = {
        "name": "foxes", "classes": [{"name": name, "prompts": [f"a {name}"]} for name in ("fox", "dog")],
        "train_per_class": 2, "test_per_class": 0, "generation": generation,
    }  # fmt: skip
    dataset = mine.post("/datasets", json=body).json()
    assert code_of(mine.post("/datasets", json={**body, "name": "more"})) == (429, "quota_exceeded")
    assert mine.get("/datasets").json()["items"][0]["id"] == dataset["id"]
    assert len(mine.get("/datasets").json()["items"]) == 1
    assert mine.post(f"/jobs/{dataset['job_id']}/cancel").json()["status"] == "cancelled"
    retried = mine.post(f"/jobs/{dataset['job_id']}/retry")
    assert retried.status_code == 202, retried.text
    assert code_of(generate(mine)) == (429, "quota_exceeded")
    assert mine.post(f"/jobs/{retried.json()['id']}/cancel").json()["status"] == "cancelled"
    asynchronous = mine.post("/generate", json=SMALL, headers={"Prefer": "respond-async"})
    assert asynchronous.status_code == 202
    assert mine.post("/datasets", json={**body, "name": "two", "train_per_class": 1}).status_code == 202


def test_a_key_that_has_stored_its_megabytes_deletes_before_it_adds(house: House) -> None:
    mine, other = house.add("mine", stored_mb=0), house.add("other")
    dataset = create_empty(mine)
    for answer in (generate(mine), upload(mine, dataset["id"], [picture(1)])):
        assert code_of(answer) == (429, "quota_exceeded")
        assert "Retry-After" not in answer.headers
    assert generate(other).status_code == 200
    assert mine.delete(f"/datasets/{dataset['id']}").status_code == 204


def test_many_threads_of_one_caller_leave_the_other_its_requests(house: House) -> None:
    greedy, other = house.add("greedy", concurrent_requests=2), house.add("other")
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            assert greedy.get("/models").status_code in (200, 429)

    with ThreadPoolExecutor(8) as threads:
        for _ in range(8):
            threads.submit(hammer)
        answers = [other.get("/models").status_code for _ in range(50)]
        stop.set()
    assert answers == [200] * 50
    assert greedy.get("/models").status_code == 200


def test_without_keys_the_bounds_are_those_of_the_settings_for_each_address(tmp_path: Path, database_url: str) -> None:
    settings = make_settings(tmp_path / "data", database_url, caller_pixel_steps_per_day=PIXEL_STEPS)
    with serve(settings, FakeModels()) as node, client_of(node, None) as http:
        assert generate(http).status_code == 200
        assert code_of(generate(http)) == (429, "quota_exceeded")
