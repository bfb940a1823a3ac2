"""The syntax of weighted prompts: brackets, numbers, escapes, what is never closed, and chunks."""

import pytest

from app.engine.diffusion.texts.weighted_prompts import MAX_WEIGHT, Token, chunks_of, parse_weights, tokenize


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a red fox", [("a red fox", 1.0)]),
        ("", [("", 1.0)]),
        ("a (red) fox", [("a ", 1.0), ("red", 1.1), (" fox", 1.0)]),
        ("a ((red)) fox", [("a ", 1.0), ("red", 1.21), (" fox", 1.0)]),
        ("a [red] fox", [("a ", 1.0), ("red", 1 / 1.1), (" fox", 1.0)]),
        ("(fox:1.3)", [("fox", 1.3)]),
        ("(fox: 1.3 )", [("fox", 1.3)]),
        ("(fox:.5)(dog:-1)", [("fox", 0.5), ("dog", -1.0)]),
        ("((a:1.5) b:2)", [("a", 3.0), (" b", 2.0)]),
        ("([a])", [("a", 1.0)]),
        ("(a)(b)", [("ab", 1.1)]),  # neighbours of one weight are one text
        (r"a \(red\) \[fox\] \\", [("a (red) [fox] \\", 1.0)]),
        (r"a \red", [(r"a \red", 1.0)]),
        ("(a (b", [("a ", 1.1), ("b", 1.21)]),
        ("[a", [("a", 1 / 1.1)]),
        ("a) b] c:1.2)", [("a) b] c:1.2)", 1.0)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("[a:1.2]", [("a:1.2", 1 / 1.1)]),
        ("()[](:2)", [("", 1.0)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1.0), (" c", 1 / 1.1)]),
        ("(fox:9999)((dog:9)(:9):9)", [("foxdog", MAX_WEIGHT)]),
    ],
)
def test_brackets_weigh_their_text(prompt: str, parts: list[tuple[str, float]]) -> None:
    found = parse_weights(prompt)
    assert [part.text for part in found] == [text for text, _ in parts]
    assert [part.weight for part in found] == pytest.approx([weight for _, weight in parts])


def letters(text: str) -> list[tuple[int, int]]:
    """A tokenizer of letters."""
    return [(ord(letter), position) for position, letter in enumerate(text) if letter.isalpha()]


def test_tokens_have_the_weights_of_their_parts() -> None:
    read = tokenize("a (b:2)c", letters, chunk_size=2)
    assert read.tokens == [Token(ord("a"), 1.0), Token(ord("b"), 2.0), Token(ord("c"), 1.0)]
    assert read.cut is None
    assert chunks_of(read.tokens, 2) == [read.tokens[:2], read.tokens[2:]]
    assert chunks_of([], 2) == [[]]


@pytest.mark.parametrize(
    ("prompt", "cut"), [("abcd", None), ("abcde f", "e f"), ("abc(def)(g:2)", "efg"), ("ab(cd)[ef]", "ef")]
)
def test_what_does_not_fit_is_returned_without_brackets(prompt: str, cut: str | None) -> None:
    read = tokenize(prompt, letters, chunk_size=2, max_chunks=2)
    assert len(read.tokens) == 4
    assert read.cut == cut


def test_no_prompt_takes_long() -> None:
    for sign in ("(", ")", "[", ":1)", "\\", "(a:1)", "(:"):
        assert parse_weights(sign * (2_000 // len(sign)))
