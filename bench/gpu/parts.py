"""The measurements, each a function from models to lines of the table. G3, the server under load, is not here."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch

from app.engine.diffusion.options import ROW_BUCKETS
from bench.gpu.models import Models
from bench.gpu.ours import decode, finish_all, make_decoder, make_denoiser, start_image

GUIDANCE = 7.5


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        steps: Of an image.
        repeats: Of which the median is taken.
        batches: Images at a time.
        rows: Of a forward.
        peak_flops: What 100 % would be; None: unknown.
    """

    steps: int
    repeats: int
    batches: tuple[int, ...]
    rows: tuple[int, ...] = (1, *ROW_BUCKETS, 48, 64)
    peak_flops: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    part: str
    case: str
    figures: dict[str, float | None] = field(default_factory=dict)


class Mode(NamedTuple):
    """How forwards are taken."""

    name: str
    graphs: bool
    compiles: bool


def _modes(models: Models) -> list[Mode]:
    modes = [Mode("", False, False), Mode("graphs", True, False), Mode("compiled, graphs", True, True)]
    return modes if models.device.type == "cuda" else modes[:1]


def seconds_of(device: torch.device, call: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call until the device is done, after two that do not count."""
    times = []
    for _ in range(2 + repeats):
        started_at = time.perf_counter()
        call()
        _wait(device)
        times.append(time.perf_counter() - started_at)
    return statistics.median(times[2:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def forwards(models: Models, effort: Effort) -> list[Line]:
    """G1: one forward by its number of rows, run one by one and from recordings."""
    lines = []
    for mode in _modes(models):
        denoiser = make_denoiser(models, graphs=mode.graphs, compiles=mode.compiles)
        for rows in effort.rows:
            inputs = (
                torch.randn(rows, 4, models.side, models.side, device=models.device),
                torch.full((rows,), 500.0, device=models.device),
                models.embeds(0).expand(rows, -1, -1).contiguous(),
            )
            seconds = seconds_of(models.device, partial(denoiser.forward, *inputs), effort.repeats)
            flops = models.row_flop and rows * models.row_flop / seconds
            figures = {
                "ms": 1000 * seconds,
                "rows_per_s": rows / seconds,
                "tflops": flops and flops / 1e12,
                "mfu": flops and effort.peak_flops and flops / effort.peak_flops,
            }
            lines.append(Line("G1 forward", f"{mode.name or 'eager'}, {rows} rows", figures))
    return lines


def images(models: Models, effort: Effort) -> list[Line]:
    """G2: guided images a second, decoded: ours, then diffusers' pipeline as it comes and by its documentation."""
    lines = []
    for mode in _modes(models):
        denoiser = make_denoiser(models, graphs=mode.graphs, compiles=mode.compiles)
        decoder = make_decoder(models, compiles=mode.compiles)
        for batch in effort.batches:

            def ours(batch: int = batch, denoiser: Any = denoiser, decoder: Any = decoder) -> None:
                states = [start_image(models, seed, effort.steps) for seed in range(batch)]
                finish_all(denoiser, states)
                for state in states:
                    decode(decoder, state.latents)

            lines.append(_rate(models, f"ours{mode.name and ', '}{mode.name}, batch {batch}", batch, ours, effort))
    models.unet.to(memory_format=torch.contiguous_format)
    models.vae.to(memory_format=torch.contiguous_format)
    lines += _upstream(models, effort, "diffusers")
    models.unet.to(memory_format=torch.channels_last)
    models.vae.to(memory_format=torch.channels_last)
    if models.device.type == "cuda":
        # diffusers' "Accelerate inference": channels_last, the UNet and the decoder compiled
        models.unet.compile(mode="reduce-overhead", fullgraph=True)
        models.vae.decode = torch.compile(models.vae.decode)
        lines += _upstream(models, effort, "diffusers, compiled")
    return lines


def _upstream(models: Models, effort: Effort, name: str) -> list[Line]:
    pipeline = models.pipeline()
    return [
        _rate(models, f"{name}, batch {n}", n, partial(_run, pipeline, models, effort.steps, range(n)), effort)
        for n in effort.batches
    ]


def _rate(models: Models, case: str, num_images: int, call: Callable[[], object], effort: Effort) -> Line:
    seconds = seconds_of(models.device, call, max(1, effort.repeats // 3))
    return Line("G2 images", case, {"images_per_s": num_images / seconds, "s": seconds})


def _run(pipeline: Any, models: Models, steps: int, seeds: range) -> torch.Tensor:
    """Make images with diffusers, to 8 bits as ours. **Shapes**: returns (B, 3, H, W) float32 in -1 ... 1."""
    made: torch.Tensor = pipeline(
        prompt_embeds=torch.cat([models.embeds(seed + 1) for seed in seeds]),
        negative_prompt_embeds=models.embeds(0).expand(len(seeds), -1, -1),
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        height=8 * models.side,
        width=8 * models.side,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="pt",
    ).images
    return (255 * made.float().cpu()).round() / 127.5 - 1


def packing(models: Models, effort: Effort) -> list[Line]:
    """G4: half the images unguided; of one row each, or of two as where every row is guided."""
    lines = []
    batch = max(effort.batches)
    for case, unguided_rows in (("packed", 1), ("unpacked", 2)):
        denoiser = make_denoiser(models)

        def call(unguided_rows: int = unguided_rows, denoiser: Any = denoiser) -> None:
            states = [
                start_image(models, seed, effort.steps, rows=unguided_rows if seed % 2 else 2) for seed in range(batch)
            ]
            finish_all(denoiser, states)

        seconds = seconds_of(models.device, call, max(1, effort.repeats // 3))
        count = denoiser.row_count
        figures: dict[str, float | None] = {
            "images_per_s": batch / seconds,
            "padding_share": count.padding / (count.wanted + count.padding),
        }
        lines.append(Line("G4 packing", case, figures))
    return lines


def placement(models: Models, effort: Effort) -> list[Line]:
    """G5: what decoding does to the time of a step: all that is done at once, one a step, or not at all."""
    return [
        _steps_with_decoding(models, effort, case, most)
        for case, most in (("all", 999), ("one a step", 1), ("none", 0))
    ]


def _steps_with_decoding(models: Models, effort: Effort, case: str, most: int) -> Line:
    denoiser, decoder = make_denoiser(models), make_decoder(models)
    batch = max(effort.batches)
    waiting: list[torch.Tensor] = []
    times: list[float] = []
    states: list[Any] = []
    for turn in range(2 + 3 * effort.steps):
        # Two images at a time end together, so that there is something to spread.
        while len(states) < batch and turn % 2 == 0:
            states.append(start_image(models, turn, effort.steps))
        started_at = time.perf_counter()
        denoiser.step(states)
        waiting += [state.latents for state in states if state.is_denoised]
        states = [state for state in states if not state.is_denoised]
        for latents in waiting[:most]:
            decode(decoder, latents)
        waiting = waiting[most:] if most else []
        _wait(models.device)
        times.append(time.perf_counter() - started_at)
        states = states or [start_image(models, turn, effort.steps)]
    counted = sorted(times[2:])
    p50, p99 = counted[len(counted) // 2], counted[int(0.99 * (len(counted) - 1))]
    return Line("G5 decoding", case, {"p50_ms": 1000 * p50, "p99_ms": 1000 * p99, "jitter": p99 / p50})


def parity(models: Models, effort: Effort) -> list[Line]:
    """G6: ours against diffusers, and each of the two in a batch against itself alone; decibels of 8-bit pixels."""
    batch = range(max(effort.batches))
    pipeline, decoder = models.pipeline(), make_decoder(models)
    theirs = _run(pipeline, models, effort.steps, batch)[0]
    theirs_alone = _run(pipeline, models, effort.steps, range(1))[0]
    lines = [Line("G6 parity", "diffusers, in a batch against alone", _difference(theirs, theirs_alone))]
    for word, denoiser in (
        ("", make_denoiser(models)),
        (", compiled", make_denoiser(models, compiles=True)),
        (", deterministic", make_denoiser(models, deterministic=True)),
        (", deterministic, compiled", make_denoiser(models, deterministic=True, compiles=True)),
    ):
        states = [start_image(models, seed, effort.steps) for seed in batch]
        finish_all(denoiser, states)
        alone = start_image(models, 0, effort.steps)
        finish_all(denoiser, [alone])
        mine, mine_alone = decode(decoder, states[0].latents), decode(decoder, alone.latents)
        lines.append(Line("G6 parity", f"ours{word}, in a batch against alone", _difference(mine, mine_alone)))
        lines.append(Line("G6 parity", f"ours{word}, alone against diffusers", _difference(mine_alone, theirs_alone)))
    return lines


def _difference(left: torch.Tensor, right: torch.Tensor) -> dict[str, float | None]:
    a, b = ((127.5 * (image + 1)).round() for image in (left, right))
    error = float(((a - b) ** 2).mean())
    return {
        "psnr_db": None if error == 0 else 10 * float(torch.log10(torch.tensor(255.0**2 / error))),
        "max_abs": float((left - right).abs().max()),
    }
