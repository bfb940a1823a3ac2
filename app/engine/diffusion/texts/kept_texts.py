"""Keys and values of prompts, computed once for all steps and all requests that have the prompt, within a memory bound.

They live as long as an image that uses them. The rows of a forward are joined, and stay joined while the same prompts
step together. Prompts for which there is no room are projected in every forward, with the same bytes. Runs on the
device thread.
"""

import hashlib
import itertools
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from app.engine.kernels.cpu_kept import KeptRows

# Of prompts and of joined rows alike. The demo pack's 32 rows take 16 MB; eight prompts of Stable Diffusion v1.5 in
# float32 take 60, and more gain little: the projections are 0.4 % of its step at 512 x 512.
MAX_TEXT_BYTES = 64 * 2**20

# Sizes of latents and sets of weights that take turns.
MAX_JOINED = 8


class Projector(Protocol):
    """What computes keys and values; `KeepingForward`, or a fake of it in tests."""

    def project(self, embeds: torch.Tensor, rows: int) -> torch.Tensor:
        """Compute those of one prompt, as a forward of this many rows does. **Shapes**: (1, T, D) to (T x N,)."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class KeptText:
    """One prompt's keys and values under one set of weights.

    Attributes:
        number: Never used again.

    Shapes:
        values: (T x N,), see `KeepingForward.project`.
    """

    number: int
    values: torch.Tensor
    tokens: int


class KeptTexts:
    """The keys and values that images hold now."""

    def __init__(self, max_bytes: int = MAX_TEXT_BYTES) -> None:
        """Start empty.

        Args:
            max_bytes: Of the prompts, and once more of joined rows.
        """
        self._max_bytes = max_bytes
        self._numbers = itertools.count()
        self._texts = weakref.WeakValueDictionary[tuple[int, int, bytes], KeptText]()
        self._joined: OrderedDict[tuple[int, ...], torch.Tensor] = OrderedDict()  # the least recently used first

    @property
    def num_bytes(self) -> int:
        """The memory that is taken now."""
        return self._text_bytes + self._joined_bytes

    def keep(self, forward: Projector, embeds: torch.Tensor, rows: int) -> tuple[KeptText, ...]:
        """Return the keys and values of an image's prompts; none where there is no room for all of them.

        Args:
            forward: Whose they are.
            embeds: The prompts.
            rows: Of the smallest forward: the number that all others give the same bytes as.

        Shapes:
            embeds: (R, T, D).
        """
        texts = [self._find(forward, embeds[index : index + 1], rows) for index in range(len(embeds))]
        return tuple(text for text in texts if text is not None) if None not in texts else ()

    def join(self, texts: Sequence[KeptText]) -> KeptRows | None:
        """Return the rows of a forward; None where they are too large to be kept. All have as many tokens."""
        numbers = tuple(text.number for text in texts)
        rows = self._joined.get(numbers)
        if rows is None:
            if len(texts) * texts[0].values.nbytes > self._max_bytes:
                return None
            rows = self._joined[numbers] = torch.stack([text.values for text in texts])
            while len(self._joined) > MAX_JOINED or self._joined_bytes > self._max_bytes:
                self._joined.popitem(last=False)
        self._joined.move_to_end(numbers)
        return KeptRows(rows, texts[0].tokens)

    def _find(self, forward: Projector, embeds: torch.Tensor, rows: int) -> KeptText | None:
        """Return the keys and values of a prompt, those of another image where it has the same."""
        bits = memoryview(embeds.contiguous().view(torch.uint8).numpy())  # type: ignore[arg-type]
        key = (id(forward), rows, hashlib.sha256(bits).digest())
        text = self._texts.get(key)
        if text is not None:
            return text
        text = KeptText(next(self._numbers), forward.project(embeds, rows), embeds.shape[1])
        if self._text_bytes + text.values.nbytes > self._max_bytes:
            return None
        self._texts[key] = text
        weakref.finalize(text, self._forget, text.number).atexit = False
        return text

    def _forget(self, number: int) -> None:
        """Drop joined rows with a prompt that no image holds any more; the thread that drops the image may call it."""
        for numbers in [numbers for numbers in list(self._joined) if number in numbers]:
            self._joined.pop(numbers, None)

    @property
    def _text_bytes(self) -> int:
        return sum(text.values.nbytes for text in self._texts.values())

    @property
    def _joined_bytes(self) -> int:
        return sum(rows.nbytes for rows in list(self._joined.values()))
