"""Templates name variables and nothing else; the walk meets every combination once, and every value equally often."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.datasets.recipes.templates import BadTemplate, combination, extent_of, parse_template


@pytest.mark.parametrize(
    ("text", "values", "filled"),
    [
        ("a red fox", {}, "a red fox"),
        ("two  spaces stay", {}, "two  spaces stay"),
        ("{style} a fox {place}", {"style": "a photo of", "place": "at night"}, "a photo of a fox at night"),
        ("{style} a fox {place}", {"style": "", "place": ""}, "a fox"),
        ("{x}{x}", {"x": "ab"}, "abab"),
        ("a {{curly}} fox", {}, "a {curly} fox"),
        ("{{{x}}}", {"x": "fox"}, "{fox}"),
        ("{x}", {"x": "{y} {0} {x.__class__} {{"}, "{y} {0} {x.__class__} {{"),
    ],
)
def test_filling(text: str, values: dict[str, str], filled: str) -> None:
    assert parse_template(text).fill(values) == filled


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "}",
        "a { b",
        "{}",
        "{0}",
        "{x.y}",
        "{x[0]}",
        "{x!r}",
        "{x:>9}",
        "{X}",
        "{ x }",
        "{{x}",
        "{" + "x" * 33 + "}",
    ],
)
def test_what_only_format_understands_is_no_template(text: str) -> None:
    with pytest.raises(BadTemplate):
        parse_template(text)


def test_variables_are_named_once_in_the_order_of_the_text() -> None:
    assert parse_template("{b} {a} {b}").variables == ("b", "a")


TEXT = st.text(alphabet="ab \t\u00a0", max_size=6)


@given(st.lists(st.tuples(TEXT, st.sampled_from("xy")), max_size=6), TEXT, TEXT, TEXT)
def test_a_filled_length_is_known_without_filling(places: list, end: str, x: str, y: str) -> None:
    template = parse_template("".join(f"{text}{{{name}}}" for text, name in places) + end)
    filled = template.fill({"x": x, "y": y})
    assert template.filled_length({"x": extent_of(x), "y": extent_of(y)}) == len(filled)


SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@given(SIZES)
def test_a_walk_meets_every_combination_once_and_begins_anew(sizes: list[int]) -> None:
    everything = set(itertools.product(*(range(size) for size in sizes)))
    walk = [combination(sizes, step) for step in range(2 * len(everything))]
    assert set(walk[: len(everything)]) == everything
    assert walk[: len(everything)] == walk[len(everything) :]


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 200))
def test_after_any_number_of_steps_the_values_of_two_lists_were_met_almost_equally_often(
    sizes: tuple[int, int], steps: int
) -> None:
    for which in (0, 1):
        met = Counter(combination(sizes, step)[which] for step in range(steps))
        counts = [met[value] for value in range(sizes[which])]
        # The second list's begins anew a step late at each shift, so that it may be off by one more.
        assert max(counts) - min(counts) <= 1 + which
