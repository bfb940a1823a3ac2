"""What a soak takes for a broken limit."""

from collections import Counter
from typing import Any

import pytest

from bench.soak.limits import broken_limits, told_secrets

COUNTS = {
    ("generate", "200"): 90,
    ("generate", "500"): 3,
    ("leave", "left"): 20,
    ("bad", "422"): 5,
    ("capped", "429"): 1,
}
STATE = {"in_flight": 0, "is_alive": True, "faults": 2}


def judge(
    counts: dict[tuple[str, str], int] | None = None,
    rss_bytes: tuple[int, int] = (1000, 1100),
    exit_code: int = 0,
    **state: Any,
) -> list[str]:
    return broken_limits(Counter({**COUNTS, **(counts or {})}), rss_bytes, {**STATE, **state}, exit_code)


def test_answers_refusals_and_clients_that_left_break_no_limit() -> None:
    assert judge({("generate", "503"): 7, ("clip", "200"): 1}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"counts": {("generate", "unanswered"): 1}}, "1 generate requests ended with unanswered"),
        ({"counts": {("bad", "500"): 2}}, "2 bad requests ended with 500"),
        ({"counts": {("bad", "200"): 1}}, "1 bad requests ended with 200"),
        ({"counts": {("generate", "200"): 0}}, "no image was made"),
        ({"counts": {("capped", "429"): 0}}, "no bound of a key was reached"),
        ({"counts": {("stranger", "200"): 1}}, "1 stranger requests ended with 200"),
        ({"rss_bytes": (1000, 1101)}, "memory grew by 10.1%"),
        ({"in_flight": 3}, "3 requests were left in the engine"),
        ({"is_alive": False}, "the device thread died"),
        ({"faults": 0}, "requests failed without a fault"),
        ({"exit_code": -11}, "the server ended with -11"),
    ],
)
def test_a_broken_limit_is_told(changes: dict[str, Any], words: str) -> None:
    assert judge(**changes) == [words]


def test_a_secret_that_is_told_breaks_a_limit() -> None:
    secrets = {"a prompt": "quokka", "a key": "fox_1"}
    assert told_secrets({"the log": "fox_2", "/metrics": ""}, secrets) == []
    assert told_secrets({"the log": "a quokka", "/metrics": "fox_1"}, secrets) == [
        "the log repeats a prompt",
        "/metrics repeats a key",
    ]
