"""POST /generate as server-sent events: progress, then the result or the error; who leaves frees the engine."""

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import httpx
import pytest
from fastapi import Request
from fastapi.sse import KEEPALIVE_COMMENT
from pydantic import BaseModel

from app.api.sse import Progress, events
from app.errors import QueueFull
from testing.fake_models import BROKEN_PROMPT
from testing.node import Node
from testing.waiting import PATIENCE_S

FOX = {"prompt": "a watercolor painting of a red fox", "num_inference_steps": 3, "seed": 42}
EVENTS = {"Accept": "text/event-stream"}


class Event(NamedTuple):
    name: str
    data: dict
    retry: int | None = None


def parse(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Event(
                fields["event"], json.loads(fields["data"]), int(fields["retry"]) if "retry" in fields else None
            )
            fields = {}


def told(http: httpx.Client, **fields: object) -> list[Event]:
    answer = http.post("/generate", json={**FOX, **fields}, headers=EVENTS)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    return list(parse(iter(answer.text.split("\n"))))


def test_progress_comes_first_and_the_ordinary_answer_last(http: httpx.Client) -> None:
    *progress, result = told(http)
    assert [event.name for event in progress] == ["progress"] * len(progress)
    steps = [event.data["step"] for event in progress]
    assert steps == sorted(steps)
    # The fake takes no step twice.
    known = {"kind": "progress", "image": 0, "step": 3, "steps": 4, "num_images": 1}
    assert progress[-1].data == {**known, "preview_step": None, "preview_png_b64": None}
    ordinary = http.post("/generate", json=FOX).json()
    assert result.name == "result"
    assert result.data.keys() == ordinary.keys()
    assert result.data["parameters"] == ordinary["parameters"]
    assert result.data["images"][0].keys() == ordinary["images"][0].keys()
    assert result.data["images"][0]["sha256"] == ordinary["images"][0]["sha256"]
    assert http.get(f"/generations/{result.data['id']}").status_code == 200


def test_several_images_are_told_apart_and_may_come_inline(http: httpx.Client) -> None:
    *progress, result = told(http, num_images_per_prompt=3, response_format="b64_json")
    last_steps = {event.data["image"]: event.data["step"] for event in progress}
    assert last_steps == {0: 3, 1: 3, 2: 3}
    assert {event.data["num_images"] for event in progress} == {3}
    for image in result.data["images"]:
        assert base64.b64decode(image["b64_json"]) == http.get(image["url"]).content


def test_what_is_refused_before_the_first_event_keeps_its_status(node: Node) -> None:
    for changes in ({"width": 1024}, {"prompt": ""}, {"typo": 1}):
        answer = node.http.post("/generate", json={**FOX, **changes}, headers=EVENTS)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_a_full_queue_is_known_before_the_first_event(small_node: Node) -> None:
    small_node.models.diffusion.gate.clear()
    answer = small_node.http.post("/generate", json={**FOX, "num_images_per_prompt": 8}, headers=EVENTS)
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert int(answer.headers["retry-after"]) >= 1
    small_node.models.diffusion.gate.set()
    assert told(small_node.http)[-1].name == "result"


def test_what_fails_after_the_first_event_ends_the_stream_with_the_problem(node: Node) -> None:
    node.models.diffusion.gate.clear()
    body = {**FOX, "prompt": BROKEN_PROMPT}
    with node.http.stream("POST", "/generate", json=body, headers=EVENTS) as answer:
        told_so_far = parse(answer.iter_lines())
        assert next(told_so_far).data["step"] == 0
        node.models.diffusion.gate.set()
        *_, error = told_so_far
        assert error.name == "error"
        assert (error.data["status"], error.data["code"]) == (500, "inference_failed")
        assert error.data["request_id"] == answer.headers["x-request-id"]
    assert node.http.get("/images").json()["items"] == []
    assert told(node.http)[-1].name == "result"


def test_a_client_that_leaves_frees_its_rows_at_the_next_step(node: Node) -> None:
    diffusion, engine = node.models.diffusion, node.models.engine
    diffusion.gate.clear()
    body = {**FOX, "num_inference_steps": 150, "num_images_per_prompt": 4}
    with node.http.stream("POST", "/generate", json=body, headers=EVENTS) as answer:
        told_so_far = parse(answer.iter_lines())  # held: a generator that is dropped closes the connection
        assert next(told_so_far).data["step"] == 0
        assert diffusion.stepping.wait(PATIENCE_S)
    left = threading.Event()
    diffusion.running[0].future.add_done_callback(lambda _: left.set())
    assert left.wait(PATIENCE_S)
    diffusion.gate.set()
    # Scoring takes a turn of the device after that of the image, when the image itself is gone from the engine.
    assert told(node.http, num_inference_steps=1, labels=["fox"])[-1].name == "result"
    assert diffusion.num_steps == 2, "the one under way, and the next request's"
    assert set(engine.in_flight().values()) == {0}
    assert engine.expected_wait_s("diffusion") == 0, "nothing waits or runs"
    assert len(node.http.get("/generations").json()["items"]) == 1


def test_who_waits_is_told_how_many_go_before_him_as_it_changes(small_node: Node) -> None:
    diffusion, http = small_node.models.diffusion, small_node.http
    diffusion.gate.clear()
    long = {**FOX, "num_inference_steps": 150}
    with ExitStack() as open_streams:
        streams = []
        for _ in range(3):
            answer = open_streams.enter_context(http.stream("POST", "/generate/events", json=long))
            streams.append((answer, parse(answer.iter_lines())))
            assert next(streams[-1][1]).data["step"] == 0
            assert diffusion.stepping.wait(PATIENCE_S)
        first, second, third = streams
        assert next(second[1]) == Event("queued", {"kind": "queued", "position": 1})
        assert next(third[1]).data["position"] == 2
        second[0].close()  # its client leaves
        assert next(third[1]).data["position"] == 1
        first[0].close()
        diffusion.gate.set()
        names = [event.name for event in third[1]]
    assert names[-1] == "result"
    assert set(names) == {"queued", "progress", "result"}
    assert "queued" not in names[names.index("progress") :]


def test_a_place_in_the_queue_is_told_until_the_first_step_alone() -> None:
    async def scenario() -> None:
        progress = Progress(num_images=1)
        work: asyncio.Task[Done] = asyncio.ensure_future(asyncio.Event().wait())  # type: ignore[arg-type]
        stream = events(a_request(), work, progress)
        progress.report(0, 0, 5)
        progress.place(2)
        progress.place(1)
        sent = [(await anext(stream)).decode() for _ in range(2)]
        (first,), (second,) = (list(parse(iter(text.split("\n")))) for text in sent)
        assert (first.name, second) == ("progress", Event("queued", {"kind": "queued", "position": 1}))
        progress.place(0)
        progress.report(0, 1, 5)
        (only,) = parse(iter((await anext(stream)).decode().split("\n")))
        assert (only.name, progress.take_place()) == ("progress", None)
        work.cancel()

    asyncio.run(scenario())


def test_a_stopping_server_ends_the_stream(node: Node) -> None:
    node.models.diffusion.gate.clear()
    with node.http.stream("POST", "/generate", json=FOX, headers=EVENTS) as answer:
        told_so_far = parse(answer.iter_lines())
        assert next(told_so_far).name == "progress"
        node.begin_stop()
        try:
            last = [event.name for event in told_so_far][-1:]
        except httpx.RemoteProtocolError:  # closed in the middle: the client knows that it was no whole answer
            last = ["error"]
        assert last == ["error"]


def test_respond_async_goes_before_every_accept(http: httpx.Client) -> None:
    for accept in ("text/event-stream", "image/png", "application/xml"):
        answer = http.post(
            "/generate", json={**FOX, "num_images_per_prompt": 2}, headers={"Accept": accept, "Prefer": "respond-async"}
        )
        assert (answer.status_code, answer.json()["kind"]) == (202, "generate")
        assert answer.headers["preference-applied"] == "respond-async"
    refused = http.post(
        "/generate", json={**FOX, "response_format": "b64_json"}, headers={**EVENTS, "Prefer": "respond-async"}
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "b64_json_not_with_respond_async")


@pytest.mark.parametrize(
    ("accept", "status", "media_type"),
    [
        ("", 200, "application/json"),
        (",,;,", 200, "application/json"),
        (";q=1", 200, "application/json"),
        ("TEXT/Event-Stream;q=nonsense;;=", 200, "text/event-stream"),
        ("text/html, text/event-stream, application/json", 200, "text/event-stream"),
        ("application/json, text/event-stream", 200, "application/json"),
        ("text/event-stream2", 406, "application/problem+json"),
        ("text/*", 406, "application/problem+json"),
        ("*", 406, "application/problem+json"),
        ("image/png/../../etc", 406, "application/problem+json"),
        ("\xff\xfe\x80", 406, "application/problem+json"),
        ("a," * 249 + "a", 406, "application/problem+json"),
        ("a" * 5_000, 406, "application/problem+json"),
    ],
)
def test_no_accept_is_too_odd(shared_node: Node, accept: str, status: int, media_type: str) -> None:
    headers = {b"Accept": accept.encode("latin-1")}
    answer = shared_node.http.post("/generate", json={**FOX, "num_inference_steps": 1}, headers=headers)
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (status, media_type)
    if status == 406:
        assert "text/event-stream" in answer.json()["detail"]
        assert "etc" not in answer.text


class Done(BaseModel):
    told: str = "line\nbreak\r\n\n: and more"


def a_request() -> Request:
    return Request({"type": "http", "method": "POST", "path": "/generate", "headers": [], "query_string": b""})


def test_a_client_that_does_not_read_is_told_the_newest_step_only() -> None:
    async def scenario() -> None:
        progress = Progress(num_images=16)
        work: asyncio.Task[Done] = asyncio.ensure_future(asyncio.Event().wait())  # type: ignore[arg-type]
        stream = events(a_request(), work, progress)
        for step in range(151):
            for image in range(16):
                progress.report(image, step, 150)
        sent = list(parse(iter((await anext(stream)).decode().split("\n"))))
        assert [(event.data["image"], event.data["step"]) for event in sent] == [(k, 150) for k in range(16)]
        assert progress.take() == [], "nothing was kept for later"
        work.cancel()

    asyncio.run(scenario())


def test_silence_is_broken_by_comments_until_there_is_news() -> None:
    async def scenario() -> None:
        progress, finish = Progress(num_images=1), asyncio.Event()

        async def do() -> Done:
            await finish.wait()
            return Done()

        work = asyncio.ensure_future(do())
        work.add_done_callback(lambda _: progress.wake())
        stream = events(a_request(), work, progress, keep_alive_s=0.001)
        assert await anext(stream) == await anext(stream) == KEEPALIVE_COMMENT
        finish.set()
        rest = b"".join([chunk async for chunk in stream]).replace(KEEPALIVE_COMMENT, b"").decode()
        assert list(parse(iter(rest.split("\n")))) == [Event("result", Done().model_dump())], "the framing is whole"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "status", "retry_ms"), [(QueueFull(retry_after_s=7), 503, 7_000), (ValueError("secret"), 500, None)]
)
def test_the_last_event_of_what_failed_is_the_problem(error: Exception, status: int, retry_ms: int | None) -> None:
    async def scenario() -> list[bytes]:
        async def fail() -> Done:
            raise error

        progress = Progress(num_images=1)
        work = asyncio.ensure_future(fail())
        work.add_done_callback(lambda _: progress.wake())
        return [chunk async for chunk in events(a_request(), work, progress)]

    (chunk,) = asyncio.run(scenario())
    (event,) = parse(iter(chunk.decode().split("\n")))
    assert (event.name, event.data["status"], event.retry) == ("error", status, retry_ms)
    assert b"secret" not in chunk
