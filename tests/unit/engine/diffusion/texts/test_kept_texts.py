"""Keys and values of prompts with a fake projection: shared, joined, freed, and within their bounds."""

import torch

from app.engine.diffusion.texts.kept_texts import MAX_JOINED, KeptText, KeptTexts

WIDTH = 6  # numbers of a projected prompt
ONE = 4 * WIDTH  # its bytes


class Projection:
    """Repeats a prompt's numbers.

    Attributes:
        calls: The rows of every call.
    """

    def __init__(self) -> None:
        self.calls: list[int] = []

    def project(self, embeds: torch.Tensor, rows: int) -> torch.Tensor:
        self.calls.append(rows)
        return embeds[0, 0, :1].repeat(WIDTH)


def prompts(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers)[:, None, None].repeat(1, 2, 3)


def test_equal_prompts_share_keys_and_values_as_long_as_one_image_holds_them() -> None:
    texts, projection = KeptTexts(), Projection()
    first, second = (texts.keep(projection, prompts(0.0, other), 2) for other in (1.0, 2.0))
    assert projection.calls == [2, 2, 2]
    assert first[0] is second[0]
    assert texts.num_bytes == 3 * ONE
    del first
    assert texts.num_bytes == 2 * ONE
    del second
    assert texts.num_bytes == 0
    texts.keep(projection, prompts(0.0), 2)
    assert len(projection.calls) == 4, "nothing outlives the images"


def test_other_weights_and_other_numbers_of_rows_have_their_own() -> None:
    texts, one, other = KeptTexts(), Projection(), Projection()
    held = [texts.keep(one, prompts(1.0), 2), texts.keep(other, prompts(1.0), 2), texts.keep(one, prompts(1.0), 8)]
    assert len({id(text) for [text] in held}) == 3
    assert (one.calls, other.calls) == ([2, 8], [2])


def rows_of(texts: KeptTexts, *row_texts: KeptText) -> list[float]:
    joined = texts.join(row_texts)
    assert joined is not None
    values: list[float] = joined.values[:, 0].tolist()
    return values


def test_rows_stay_joined_until_one_of_their_prompts_is_gone() -> None:
    texts, projection = KeptTexts(), Projection()
    a, b = texts.keep(projection, prompts(1.0, 2.0), 2)
    assert rows_of(texts, a, b, a) == [1.0, 2.0, 1.0]
    once, again = texts.join([a, b]), texts.join([a, b])
    assert once is not None
    assert again is not None
    assert once.values is again.values
    assert once.tokens == 2
    assert texts.num_bytes == (2 + 3 + 2) * ONE
    del b
    assert texts.num_bytes == ONE
    assert rows_of(texts, a, a) == [1.0, 1.0]


def test_the_bounds_hold_and_what_does_not_fit_is_not_kept() -> None:
    texts, projection = KeptTexts(max_bytes=3 * ONE), Projection()
    held = texts.keep(projection, prompts(1.0, 2.0), 2)
    assert len(held) == 2
    assert texts.keep(projection, prompts(3.0, 4.0), 2) == (), "one would fit, but both are needed"
    assert texts.num_bytes == 2 * ONE
    assert texts.join([held[0]] * 4) is None
    rows_of(texts, *held)
    rows_of(texts, held[0], held[0])
    assert texts.num_bytes == (2 + 2) * ONE, "the rows that were used last are kept"


def test_only_some_joined_rows_are_kept() -> None:
    texts, projection = KeptTexts(), Projection()
    [text] = texts.keep(projection, prompts(1.0), 2)
    for count in range(1, MAX_JOINED + 4):
        rows_of(texts, *[text] * count)
    assert texts.num_bytes == ONE * (1 + sum(range(4, MAX_JOINED + 4)))
