"""Ways to take the step, each a call without arguments that returns the UNet's output."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from app.engine.diffusion.denoiser import Denoiser
from app.engine.kernels.cpu_diffusion import optimize_diffusion
from bench.gpu.models import Models
from bench.gpu.ours import make_denoiser, start_image

Way = Callable[[], object]

ROWS = 2
STEPS = 500  # of the plan; a few of them are taken
TIMESTEP = 500.0


def shared_copy(model: torch.nn.Module) -> Any:
    """Copy a model's modules, but none of its weights."""
    return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})


def ours_of(models: Models) -> Denoiser:
    """Build what serves on a CPU."""
    unet = shared_copy(models.unet)
    optimize_diffusion(unet)
    return make_denoiser(replace(models, unet=unet))


def ours(models: Models) -> Way:
    """Take steps of one guided image with our layers: forward, guidance and noise scheduler."""
    denoiser = ours_of(models)
    image = start_image(models, 0, STEPS)
    return lambda: denoiser.step([image])


def diffusers_layers(models: Models) -> Way:
    """Run diffusers' layers."""
    return lambda: run(models.unet, models)


def compiled(models: Models) -> Way:
    """Run diffusers' layers compiled by inductor, which packs frozen weights; the first call takes minutes."""
    torch._inductor.config.freezing = True
    unet = torch.compile(shared_copy(models.unet))
    return lambda: run(unet, models)


@torch.inference_mode()
def run(unet: Any, models: Models) -> torch.Tensor:
    """Run a forward of two rows over inputs that are always the same. **Shapes**: returns (2, C, h, w)."""
    samples, timesteps, embeds = inputs_of(models)
    outputs: torch.Tensor = unet(samples, timesteps, encoder_hidden_states=embeds, return_dict=False)[0]
    return outputs


def inputs_of(models: Models) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return samples, timesteps and embeddings of two rows."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(ROWS, 4, models.side, models.side, generator=generator).to(models.dtype)
    embeds = torch.cat([models.embeds(0), models.embeds(1)])
    return samples, torch.full((ROWS,), TIMESTEP), embeds


class OpenVino:
    """OpenVINO's process; each call is one forward."""

    def __init__(self, python: Path, dtype: torch.dtype, threads: int, *, is_tiny: bool) -> None:
        """Start it and wait until the model is compiled.

        Raises:
            RuntimeError: It ended instead; its error is on standard error.
        """
        words = [str(dtype).removeprefix("torch."), str(threads), *(["--tiny"] if is_tiny else [])]
        command = [str(python), "-m", "bench.full_size.openvino_worker", *words]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
        )
        self.facts = self._ask()

    def __call__(self) -> None:
        """Run one forward."""
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        self._ask()

    def _ask(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("OpenVINO's process ended.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
