"""A diffusion model under other weights: what prompts and forwards of some images use instead of the model's own.

Images of different weights never share a forward. Handles no files and no queues. `put` and `drop` are called by the
thread that loads adapters, `find` by the device thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from app.engine.diffusion.texts.prompts import Reading
from app.engine.kernels.cuda import Forward
from app.error_codes import ErrorCode
from app.errors import Invalid
from app.image_spec import AdapterSet


class Prompts(Protocol):
    """From prompts to embeddings; see `PromptEncoder`."""

    def encode_alike(self, prompts: Sequence[str], reading: Reading) -> torch.Tensor:
        """Embed the prompts of one image. **Shapes**: returns (number of prompts, T, D)."""

    def cut(self, prompt: str, reading: Reading) -> str | None:
        """Return the end of the prompt that is not used; None if all is."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What differs for images of other weights.

    Attributes:
        forward: The UNet's; None: the model's own.
    """

    prompts: Prompts
    forward: Forward | None


class RewrittenPrompts:
    """Prompts whose text is rewritten before it is embedded."""

    def __init__(self, prompts: Prompts, rewrite: Callable[[str], str]) -> None:
        """Rewrite by a pure function."""
        self._prompts = prompts
        self._rewrite = rewrite

    def encode_alike(self, prompts: Sequence[str], reading: Reading) -> torch.Tensor:
        """Embed the prompts of one image."""
        return self._prompts.encode_alike([self._rewrite(prompt) for prompt in prompts], reading)

    def cut(self, prompt: str, reading: Reading) -> str | None:
        """Return the end of the rewritten prompt that is not used; None if all is."""
        return self._prompts.cut(self._rewrite(prompt), reading)


class Variants:
    """The variants of a model that are ready, by adapter set; the empty set is the model itself."""

    def __init__(self, own: Variant) -> None:
        """Begin with the model's own."""
        self._variants: dict[AdapterSet, Variant] = {AdapterSet(): own}

    def put(self, adapters: AdapterSet, variant: Variant) -> None:
        """Add a variant."""
        self._variants[adapters] = variant

    def drop(self, adapters: AdapterSet) -> None:
        """Remove a variant, if it is here; images that run keep it until they are done."""
        self._variants.pop(adapters, None)

    def find(self, adapters: AdapterSet) -> Variant:
        """Return a variant.

        Raises:
            Invalid: It was not loaded, or is no longer.
        """
        variant = self._variants.get(adapters)
        if variant is None:
            raise Invalid("These adapters are not loaded.", code=ErrorCode.LORA_NOT_FOUND)
        return variant
