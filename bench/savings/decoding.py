"""Decoding: pictures one by one and in batches, and beside the UNet's forwards in place of between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from bench.savings.turns import Ratio, Rounds, by_turns


@dataclass(frozen=True)
class BatchLine:
    """Pictures decoded in one batch, beside as many decoded one by one.

    Attributes:
        size: Pictures of the batch.
        ratio: Of the time.
        is_same: Whether the bytes of the floating-point pictures are the same.
    """

    size: int
    ratio: Ratio
    is_same: bool


@torch.inference_mode()
def compare_batches(vae: Any, latents: torch.Tensor, sizes: Sequence[int], rounds: Rounds) -> list[BatchLine]:
    """Decode in batches of several sizes.

    Shapes:
        latents: (N, C, h, w) float32, N >= the largest size.
    """
    lines = []
    for size in sizes:
        taken = latents[:size].to(vae.dtype)

        def alone(taken: torch.Tensor = taken) -> torch.Tensor:
            return torch.cat([decoded(vae, one[None]) for one in taken])

        def together(taken: torch.Tensor = taken) -> torch.Tensor:
            return decoded(vae, taken)

        ratios = by_turns({"alone": alone, "together": together}, rounds)
        lines.append(BatchLine(size, ratios["together"], torch.equal(alone(), together())))
    return lines


def decoded(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Run the decoder. **Shapes**: (B, C, h, w) to (B, 3, H, W)."""
    pictures: torch.Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return pictures


def compare_places(
    step: Callable[[], object], decode: Callable[[], object], steps: int, decodes: int, rounds: Rounds
) -> dict[str, Ratio]:
    """Take steps and decode pictures: one after the other, or on two threads, with all cores or with half of them each.

    With other numbers of threads the bytes may be others; only the time is looked at here.
    """
    threads = torch.get_num_threads()
    half = max(1, threads // 2)

    def between() -> None:
        _repeat(threads, step, steps)
        _repeat(threads, decode, decodes)

    def beside(number: int) -> None:
        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(_repeat, number, step, steps), pool.submit(_repeat, number, decode, decodes)]:
                future.result()
        torch.set_num_threads(threads)

    ways = {
        "between steps": between,
        f"beside, {threads} threads each": lambda: beside(threads),
        f"beside, {half} each": lambda: beside(half),
    }
    return by_turns(ways, rounds)


@torch.inference_mode()
def _repeat(threads: int, call: Callable[[], object], times: int) -> None:
    torch.set_num_threads(threads)
    for _ in range(times):
        call()
