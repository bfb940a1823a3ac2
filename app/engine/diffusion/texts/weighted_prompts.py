"""Weighted prompts: from `a (red:1.3) fox` to texts with weights, and from their tokens to chunks of an encoder.

Knows no models and no tensors: the tokenizer is a function. Pure functions; any thread may call them.

The syntax is that of AUTOMATIC1111's web UI, as its documentation describes it: `(text)` weighs 1.1 times as much,
`[text]` 1.1 times less, `(text:1.3)` 1.3 times; brackets nest; a backslash before a bracket or a backslash makes it
text; what is never closed ends with the prompt, what was never opened is text. `BREAK` and `[from:to:when]` are not
read.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

EMPHASIS = 1.1

# The largest weight, in both directions; nested brackets stop there.
MAX_WEIGHT = 10.0

# A prompt of more chunks is cut: each one costs a forward of the text encoder and makes every step longer.
MAX_CHUNKS = 4

_GIVEN = re.compile(r":\s*([+-]?(?:\d{1,4}(?:\.\d{0,6})?|\.\d{1,6}))\s*\)")
_ESCAPED = "\\()[]"


@dataclass(frozen=True, slots=True)
class WeightedText:
    """A part of a prompt, without its brackets, and its weight, -`MAX_WEIGHT` ... `MAX_WEIGHT`."""

    text: str
    weight: float


class Token(NamedTuple):
    """A token of a prompt, and the factor of its embedding."""

    id: int
    weight: float


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a prompt without start and end, at most as many as fit.

    Attributes:
        cut: The text that did not fit, without brackets; None: all fits.
    """

    tokens: Sequence[Token]
    cut: str | None


def parse_weights(prompt: str) -> list[WeightedText]:
    """Return the parts of a weighted prompt, neighbours of one weight merged; at least one."""
    parts: list[tuple[list[str], list[float]]] = []  # characters, and one weight
    opened: dict[str, list[int]] = {"(": [], "[": []}
    is_split = True
    position = 0

    def weigh(start: int, factor: float) -> None:
        for _, weight in parts[start:]:
            weight[0] *= factor

    while position < len(prompt):
        sign, taken = prompt[position], 1
        given = _GIVEN.match(prompt, position) if sign == ":" and opened["("] else None
        if sign in opened:
            opened[sign].append(len(parts))
        elif given is not None:
            weigh(opened["("].pop(), float(given[1]))
            taken = len(given[0])
        elif sign == ")" and opened["("]:
            weigh(opened["("].pop(), EMPHASIS)
        elif sign == "]" and opened["["]:
            weigh(opened["["].pop(), 1 / EMPHASIS)
        else:
            if sign == "\\" and prompt[position + 1 : position + 2] in tuple(_ESCAPED):
                sign, taken = prompt[position + 1], 2
            if is_split:
                parts.append(([], [1.0]))
            parts[-1][0].append(sign)
            is_split = False
            position += taken
            continue
        is_split = True
        position += taken
    for start in opened["("]:
        weigh(start, EMPHASIS)
    for start in opened["["]:
        weigh(start, 1 / EMPHASIS)
    texts = [WeightedText("".join(signs), _bounded(weight)) for signs, (weight,) in parts]
    merged = groupby(texts, key=lambda part: part.weight)
    return [WeightedText("".join(part.text for part in same), weight) for weight, same in merged] or [
        WeightedText("", 1.0)
    ]


def plain_text(prompt: str) -> str:
    """Return a weighted prompt without its brackets and numbers, for readers without weights."""
    return "".join(part.text for part in parse_weights(prompt))


def tokenize(
    prompt: str, token_ids: Callable[[str], Sequence[tuple[int, int]]], chunk_size: int, max_chunks: int = MAX_CHUNKS
) -> Tokens:
    """Return the tokens of a weighted prompt, each part tokenized alone.

    Args:
        prompt: In the syntax of this module.
        token_ids: Returns the tokens of a text, each with the position of its first character.
        chunk_size: Tokens of a chunk, without start and end.
        max_chunks: Most chunks, >= 1.
    """
    tokens: list[Token] = []
    parts = parse_weights(prompt)
    for index, part in enumerate(parts):
        found = token_ids(part.text)
        room = chunk_size * max_chunks - len(tokens)
        tokens += [Token(token_id, part.weight) for token_id, _ in found[:room]]
        if len(found) > room:
            rest = part.text[found[room][1] :] + "".join(other.text for other in parts[index + 1 :])
            return Tokens(tokens, rest)
    return Tokens(tokens, None)


def chunks_of(tokens: Sequence[Token], chunk_size: int) -> list[Sequence[Token]]:
    """Return the tokens in chunks of `chunk_size`, the last one shorter; at least one chunk."""
    return [tokens[start : start + chunk_size] for start in range(0, max(len(tokens), 1), chunk_size)]


def _bounded(weight: float) -> float:
    return max(-MAX_WEIGHT, min(weight, MAX_WEIGHT))
