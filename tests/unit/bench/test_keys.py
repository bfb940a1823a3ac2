"""How the cost of the key check is taken from rounds of a machine whose speed wanders."""

import pytest

from bench.keys.__main__ import BASE, KEYED, OPEN, overheads_of


def test_each_request_is_compared_with_the_one_without_a_check_of_its_round() -> None:
    taken = {BASE: [1.0, 2.0, 4.0], OPEN: [1.1, 2.1, 4.1], KEYED: [1.2, 2.2, 90.0]}
    assert overheads_of(taken) == pytest.approx({BASE: 0.0, OPEN: 0.05, KEYED: 0.1})
