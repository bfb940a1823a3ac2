"""The attacks of bench.hostile: they take every answer, and what is made of the answers is right."""

import io
import json
import time

import httpx
import pytest
from PIL import Image

from bench.hostile import payloads
from bench.hostile.attacks import ATTACKS
from bench.hostile.good import GoodClient, Watch
from bench.hostile.limits import MEMORY_MARGIN, Result, as_json, judged, table
from bench.hostile.wire import Target
from testing.node import Node


def result(**changes: object) -> Result:
    values = {"attack": "a", "idle_p95_ms": 10.0, "p95_ms": 15.0, "idle_pause_ms": 5.0, "pause_ms": 9.0}
    values |= {"memory_before": 10**9, "memory_after": 10**9 + MEMORY_MARGIN, "next_is_good": True, **changes}
    return Result(**values)  # type: ignore[arg-type]


def test_an_attack_that_is_hardly_felt_misses_nothing() -> None:
    assert result().missed() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"p95_ms": 15.2}, "p95 1.52 x idle"),
        ({"p95_ms": float("inf")}, "p95 inf x idle"),
        ({"memory_after": 10**9 + MEMORY_MARGIN + 2**20}, "memory stayed 129 MiB higher"),
        ({"faults": ["GET /livez: 500"]}, "1 good requests were refused, such as ['GET /livez: 500']"),
        ({"next_is_good": False}, "the next good request failed"),
    ],
)
def test_what_is_exceeded_is_told(changes: dict[str, object], words: str) -> None:
    missed = result(**changes)
    assert missed.missed() == [words]
    assert words in table([missed])
    assert as_json(missed)["missed"] == [words]


@pytest.mark.parametrize("make", [payloads.fill_bytes, payloads.empty_segments, payloads.empty_chunks])
def test_hostile_pictures_are_pictures(make: object) -> None:
    Image.open(io.BytesIO(make(100))).load()  # type: ignore[operator]


def test_hostile_json_is_json() -> None:
    assert len(json.loads(payloads.unknown_members(100))) == 101
    assert len(json.loads(payloads.empty_arrays(300))) == 101
    assert json.loads(payloads.bulky_recipe("a"))["name"] == "a"
    assert 1_800_000 < len(payloads.bulky_recipe("a")) < 2_000_000
    bomb = json.loads(payloads.template_bomb())
    assert sum(len(entry["prompts"]) for entry in bomb["classes"]) == 1_600


def test_a_good_client_sees_its_answers(shared_node: Node) -> None:
    client, watch = GoodClient(str(shared_node.http.base_url)), Watch()
    client.turn(watch)
    client.close()
    assert (len(watch.mix_s), watch.faults, watch.p95_ms > 0) == (3, [], True)


# Those that are told apart by how they speak; the rest differ in their bytes alone.
SPEAKING = ["endless head", "eight slow uploads", "form of 10,000 fields", "request lines of 1 MB", "template bomb"]


@pytest.mark.parametrize("name", SPEAKING)
def test_an_attack_ends_in_time_whatever_it_is_answered(shared_node: Node, name: str) -> None:
    http = shared_node.http
    target = Target(http.base_url.host, http.base_url.port or 80, "127.0.0.1", "no-such-dataset", ends_at=0.0)
    attack = ATTACKS[name](target)
    target.ends_at = time.monotonic() + 0.2
    attack()
    assert sum(target.outcomes.values()) > 0
    assert http.get("/livez").status_code == 200


def test_an_attack_on_a_node_that_is_gone_ends_in_time() -> None:
    target = Target("127.0.0.1", 9, "127.0.0.1", "d", ends_at=time.monotonic() + 0.2)
    ATTACKS["flood of unknown paths"](target)()
    assert set(target.outcomes) == {"closed"}
    with pytest.raises(httpx.TransportError):
        httpx.get("http://127.0.0.1:9/livez")


@pytest.mark.parametrize(
    ("p95_ms", "counted"),
    [((14.0,), 14.0), ((16.0, 12.0, 13.0), 13.0), ((16.0, 17.0, 13.0), 16.0), ((16.0, 13.0, 20.0), 16.0)],
)
def test_an_attack_that_misses_is_made_twice_more_and_the_middle_counts(
    p95_ms: tuple[float, ...], counted: float
) -> None:
    attempts = iter([result(p95_ms=value) for value in p95_ms])
    assert judged(lambda: next(attempts)).p95_ms == counted
    assert next(attempts, None) is None
