"""Ways timed by turns: what is compared with what, on a clock that the ways move; and the script on the demo pack."""

import json
from functools import partial

import pytest

from bench.savings.__main__ import main
from bench.savings.turns import Rounds, by_turns, ratio_of


class Clock:
    """A clock that ways move on; every call takes longer by `drift`.

    Attributes:
        order: The ways, as they were called.
    """

    def __init__(self, drift: float = 1.0) -> None:
        self.now = 0.0
        self.order: list[str] = []
        self._drift = drift

    def __call__(self) -> float:
        return self.now

    def way(self, name: str, seconds: float) -> None:
        self.now += seconds * self._drift ** len(self.order)
        self.order.append(name)


def test_ways_take_turns_at_being_first_and_one_round_does_not_count() -> None:
    clock = Clock()
    ratios = by_turns({name: partial(clock.way, name, 1.0) for name in "abc"}, Rounds(3, clock))
    assert "".join(clock.order) == "cab" + "abc" + "bca" + "cab"
    assert {name: ratio.ratio for name, ratio in ratios.items()} == {"a": 1, "b": 1, "c": 1}


def test_each_round_is_compared_with_the_same_round_of_the_first_way() -> None:
    ratio = ratio_of([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert (ratio.seconds, ratio.ratio, ratio.low, ratio.high) == (4.0, 2.0, 2.0, 2.5)


def test_a_machine_that_slows_down_hits_all_ways_alike() -> None:
    clock = Clock(drift=1.01)
    ratios = by_turns(
        {"slow": lambda: clock.way("slow", 2.0), "fast": lambda: clock.way("fast", 1.0)}, Rounds(40, clock)
    )
    assert ratios["fast"].ratio == pytest.approx(0.5, rel=0.02)


@pytest.mark.slow("loads the demo pack four times and takes some steps")
def test_it_prints_a_table_and_a_line_of_json_and_all_ways_end_in_the_same_bytes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--rounds", "2", "--steps", "2", "--images", "1"]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    lines = json.loads(last)["lines"]
    assert len(table) == len(lines)
    assert {line["part"] for line in lines} == {"together", "mixed", "bytes", "batches", "places"}
    assert next(line["is_same"] for line in lines if line["part"] == "bytes")
