"""Images per minute of a node's engine with previews and without, side by side in one process.

The images of both ways take turns, round by round, so that other load on the machine hits both alike. Every image is
encoded and reported as for a stream of events; only HTTP is left out.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.api.sse import Progress
from app.image_spec import ImageSpec
from app.services.inference.service import Inference


@dataclass(frozen=True)
class Round:
    """What the same images took without and with previews.

    Attributes:
        off_s: Seconds.
        on_s: Seconds.
        off_cpu_s: Seconds of all cores of this process, which other load on the machine changes less.
        on_cpu_s: Likewise.
        previews: How many a reader of events got.
    """

    off_s: float
    on_s: float
    off_cpu_s: float
    on_cpu_s: float
    previews: int


@dataclass(frozen=True)
class _Taken:
    seconds: float
    cpu_s: float
    previews: int


async def measure(inference: Inference, specs: Sequence[ImageSpec], every: int, rounds: int) -> list[Round]:
    """Draw the images `rounds` times in each way, in alternating order, after one round that is not counted."""
    await _draw(inference, specs, None)
    measured = []
    for index in range(rounds):
        fresh = [replace(spec, seed=spec.seed + 100 * index) for spec in specs]
        taken: dict[bool, _Taken] = {}
        for is_on in (False, True) if index % 2 else (True, False):
            taken[is_on] = await _draw(inference, fresh, every if is_on else None)
        off, on = taken[False], taken[True]
        measured.append(Round(off.seconds, on.seconds, off.cpu_s, on.cpu_s, on.previews))
    return measured


async def _draw(inference: Inference, specs: Sequence[ImageSpec], every: int | None) -> _Taken:
    """Draw all images at once."""
    progress = Progress(len(specs))
    began, cpu_began = time.perf_counter(), time.process_time()
    reader = asyncio.create_task(_read(progress))
    await asyncio.gather(
        *(
            inference.render(
                spec,
                on_step=lambda done, steps, png=None, index=index: progress.report(index, done, steps, png),
                preview=every,
            )
            for index, spec in enumerate(specs)
        )
    )
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    reader.cancel()
    previews = await asyncio.gather(reader, return_exceptions=True)
    return _Taken(took_s, cpu_s, previews[0] if isinstance(previews[0], int) else 0)


async def _read(progress: Progress) -> int:
    """Take and serialise steps until cancelled; return the number of previews."""
    count = 0
    try:
        while True:
            await progress.wait()
            for step in progress.take():
                json.dumps(step.model_dump_json())
                count += step.preview_png_b64 is not None
    except asyncio.CancelledError:
        return count
