"""A node told to stop under load: every request that it took gets an answer, and none is a 500."""

import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from testing.waiting import wait_until
from testing.wire import Wire, connect
from tests.crash.house import House, exit_code, open_house

GENERATE = {"prompt": "a fox", "num_inference_steps": 2}
DATASET = {"name": "foxes", "classes": [{"name": name, "prompts": [f"a {name}"]} for name in ("fox", "dog")]}
GRACE_S = 3


@pytest.fixture
def house(tmp_path: Path, sqlite_template: Path) -> Iterator[House]:
    """A house on SQLite, whose node has a longer grace."""
    database = tmp_path / "foxhound.db"
    database.write_bytes(sqlite_template.read_bytes())
    with open_house(tmp_path, f"sqlite:///{database}") as house:
        house.settings = house.settings.model_copy(update={"shutdown_grace_s": GRACE_S})
        yield house


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def generate(house: House, **headers: str) -> httpx.Response:
    return httpx.post(f"{house.http.base_url}/generate", json=GENERATE, headers=headers, timeout=60)


def terminate(house: House) -> None:
    assert house.node is not None
    assert house.node.pid is not None
    os.kill(house.node.pid, signal.SIGTERM)


def load(house: House, threads: ThreadPoolExecutor, waiting: int) -> tuple["Future[httpx.Response]", list]:
    """Let one request run, held within its step, and others wait for the engine."""
    house.hold()
    running = threads.submit(generate, house)
    house.wait_until_held()
    queued = [threads.submit(generate, house) for _ in range(waiting)]
    wait_until(lambda: house.http.get("/readyz").json()["models"]["diffusion"]["expected_wait_s"] >= waiting)
    return running, queued


def assert_unavailable(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.json()["code"] == "unavailable"
    assert int(answer.headers["retry-after"]) >= 1


def test_what_runs_ends_what_waits_is_told_at_once_and_nothing_new_is_taken(
    house: House, threads: ThreadPoolExecutor
) -> None:
    house.start_node()
    with ExitStack() as stack:
        kept = [stack.enter_context(connect(house.http)) for _ in range(3)]
        for wire in kept:
            assert wire.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert wire.read().status == 200
        running, queued = load(house, threads, 5)
        terminate(house)
        for future in queued:  # the engine stands still all the while
            assert_unavailable(future.result(60))
        assert not running.done()
        for wire, path in zip(kept, ("/readyz", "/generations", "/livez"), strict=True):
            assert wire.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            answer = wire.read()
            assert answer.status == (200 if path == "/livez" else 503)
            assert path == "/livez" or answer.headers["retry-after"]
            assert path == "/livez" or answer.headers["connection"] == "close"
        assert_unavailable(httpx.get(f"{house.http.base_url}/readyz"))  # on a new connection: it still listens
        house.let_go()
        assert running.result(60).status_code == 200
    assert exit_code(house.node) == -signal.SIGTERM


def test_what_runs_at_the_end_of_the_grace_is_unavailable(house: House, threads: ThreadPoolExecutor) -> None:
    house.start_node()
    with closing(sqlite3.connect(house.url.removeprefix("sqlite:///"))) as writer:
        writer.execute("BEGIN IMMEDIATE")  # no other write gets through: a request waits for it in a thread
        waiting = threads.submit(httpx.post, f"{house.http.base_url}/datasets", json=DATASET, timeout=60)
        running, _ = load(house, threads, 0)
        began = time.monotonic()
        terminate(house)
        assert_unavailable(running.result(60))
        assert_unavailable(waiting.result(60))
        assert GRACE_S <= time.monotonic() - began < GRACE_S + 3
    house.let_go()
    assert exit_code(house.node) == -signal.SIGTERM


def test_events_under_way_end_with_the_error_that_an_answer_would_be(house: House, threads: ThreadPoolExecutor) -> None:
    house.start_node()
    house.hold()
    streaming = threads.submit(generate, house, Accept="text/event-stream")
    house.wait_until_held()
    terminate(house)
    answer = streaming.result(60)
    assert answer.status_code == 200
    last = answer.text.strip().split("\n\n")[-1]
    fields = dict(line.split(": ", 1) for line in last.splitlines())
    assert fields["event"] == "error"
    assert json.loads(fields["data"])["code"] == "unavailable"
    assert int(fields["retry"]) >= 1_000
    house.let_go()
    assert exit_code(house.node) == -signal.SIGTERM


def test_an_idle_node_ends_at_once(house: House) -> None:
    house.start_node()
    began = time.monotonic()
    terminate(house)
    assert exit_code(house.node) == -signal.SIGTERM
    assert time.monotonic() - began < GRACE_S


def until_refused(house: House) -> list[httpx.Response]:
    """Ask on one connection, as fast as answers come, up to the first answer that is not 200."""
    answers = []
    with httpx.Client(base_url=house.http.base_url, timeout=60) as http:
        while True:
            answers.append(http.post("/generate", json=GENERATE))
            if answers[-1].status_code != 200:
                return answers


def test_no_client_of_a_busy_node_is_left_without_an_answer(house: House, threads: ThreadPoolExecutor) -> None:
    house.start_node()
    asking = [threads.submit(until_refused, house) for _ in range(16)]
    wait_until(lambda: len(house.http.get("/generations?limit=100").json()["items"]) > 50)
    terminate(house)
    for future in asking:
        *answered, last = future.result(60)
        assert {answer.status_code for answer in answered} <= {200}
        assert_unavailable(last)
    assert exit_code(house.node) == -signal.SIGTERM


def test_a_request_whose_body_is_under_way_is_still_taken(house: House) -> None:
    house.start_node()
    body = json.dumps(GENERATE).encode()
    with connect(house.http) as wire:
        head = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += b"Content-Length: %d\r\n\r\n"
        assert wire.send(head % len(body) + body[:5])
        assert house.http.get("/livez").status_code == 200
        terminate(house)
        wait_until(lambda: house.http.get("/generations").status_code == 503)
        assert wire.send(body[5:])
        assert wire.read().status == 200
    assert exit_code(house.node) == -signal.SIGTERM


def test_before_requests_are_refused_readyz_says_so_for_the_delay(house: House) -> None:
    house.settings = house.settings.model_copy(update={"shutdown_delay_s": 2.0})
    house.start_node()
    terminate(house)
    wait_until(lambda: house.http.get("/readyz").status_code == 503)
    assert "shutting down" in house.http.get("/readyz").json()["detail"]
    assert house.http.post("/generate", json=GENERATE).status_code == 200
    assert exit_code(house.node) == -signal.SIGTERM


def test_the_engine_socket_says_unavailable_too(house: House, threads: ThreadPoolExecutor) -> None:
    house.start_node()
    running, _ = load(house, threads, 0)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(house.settings.engine_socket))
        terminate(house)
        wait_until(lambda: house.http.get("/readyz").status_code == 503)
        wire = Wire(sock)
        assert wire.send(b"POST /backbone HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        assert wire.read().status == 503
    house.let_go()
    assert running.result(60).status_code == 200
    assert exit_code(house.node) == -signal.SIGTERM
