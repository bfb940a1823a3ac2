"""Stage `few-step`: low-rank changes of the shipped UNet with which four steps without guidance are enough.

Progressive distillation from stored trajectories: at each of four timesteps the student predicts the noise whose DDIM
step lands where three guided steps of the teacher lead. Teacher and student are the shipped pack, not a checkpoint.
Computes in float32: at the first timestep an error of the noise counts fifteen times in the image.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch.func import functional_call
from transformers import CLIPTextModel, CLIPTokenizer

from demo_pack.build.loop import Moment, Recipe, load_average, train
from demo_pack.build.lora import Factors
from demo_pack.build.trajectories import FEW_STEPS, Teacher, draw_all
from demo_pack.build.workdir import TORCH_SEED

RANK = 16
BATCH = 24
RECIPE = Recipe(steps=310, learning_rate=1e-3, hidden_learning_rate=0.01, ema_decay=0.99)
OTHER_SIZE_SHARE = 0.15
# Of the pseudo-Huber loss; about the error of a step that is learnt well.
HUBER = 0.03
FILE = "few-step/unet.safetensors"
STAGE = "few-step"


@dataclass(frozen=True)
class Noise:
    """Weights of image and noise in the samples before each few step, and behind the last. **Shapes**: (5,)."""

    image: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor

    @classmethod
    def of(cls, schedule: dict[str, object]) -> Noise:
        """Read them as DDIM with trailing timesteps has them; it ends at the schedule's first timestep."""
        alphas = DDPMScheduler.from_config(schedule).alphas_cumprod
        timesteps = torch.tensor([1000 - 1000 * index // FEW_STEPS - 1 for index in range(FEW_STEPS)])
        shares = alphas[torch.cat([timesteps, torch.tensor([0])])]
        return cls(shares.sqrt(), (1 - shares).sqrt(), timesteps)

    def wanted(self, before: torch.Tensor, after: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """The noise whose DDIM step leads from one sample to the next.

        **Shapes**: samples and result (B, 4, h, w); index (B,), 0 to 3.

        Source: arXiv:2202.00512, appendix G.
        """
        image, noise, next_image, next_noise = (
            part[:, None, None, None]
            for part in (self.image[index], self.noise[index], self.image[index + 1], self.noise[index + 1])
        )
        return (after - next_image / image * before) / (next_noise - next_image / image * noise)

    def error(self, predicted: torch.Tensor, wanted: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Pseudo-Huber error of predicted noise, measured as velocity, which weighs all timesteps about alike.

        Source: arXiv:2310.14189 for the loss; arXiv:2202.00512 for velocity.
        """
        squares = (predicted - wanted).square().mean(dim=(1, 2, 3)) / self.image[index].square()
        return ((squares + HUBER**2).sqrt() - HUBER).mean()


@dataclass(frozen=True)
class Lessons:
    """Trajectories of one size. **Shapes**: states (N, 5, 4, h, w) float16, words (N, 77, 128) float32."""

    states: torch.Tensor
    words: torch.Tensor

    def batch(self, moment: Moment) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Samples before and behind random few steps, which steps, and the prompts' embeddings.

        As many as fit the cost of `BATCH` of 16x16.
        """
        height, width = self.states.shape[3:]
        size = min(2 * BATCH, BATCH * 256 // (height * width))
        chosen = torch.from_numpy(moment.rng.integers(0, len(self.states), size))
        index = torch.from_numpy(moment.rng.integers(0, FEW_STEPS, size))
        before, after = (self.states[chosen, index + shift].float() for shift in (0, 1))
        return before, after, index, self.words[chosen]


def lessons_of(workdir: Path, teacher: Teacher) -> list[Lessons]:
    """All trajectories by their size; the native size is the first."""
    by_size: dict[tuple[int, ...], list[dict[str, torch.Tensor]]] = {}
    for chunk in draw_all(workdir, teacher):
        by_size.setdefault(tuple(chunk["states"].shape[3:]), []).append(chunk)
    return [
        Lessons(
            torch.cat([chunk["states"] for chunk in chunks]),
            torch.cat([teacher.words(chunk["token_ids"]) for chunk in chunks]),
        )
        for chunks in by_size.values()
    ]


def load_teacher(pack: Path) -> Teacher:
    """The shipped pack, in float32 and ready for `train`."""
    folder = pack / "diffusion"
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    unet.set_attn_processor(AttnProcessor())  # trains a quarter faster on the CPU than fused attention
    return Teacher(
        unet.eval().requires_grad_(False).to(memory_format=torch.channels_last),
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval(),
        json.loads((folder / "scheduler" / "scheduler_config.json").read_text()),
    )


def train_few_step(workdir: Path, pack: Path, steps: int | None = None) -> None:
    """Draw the trajectories, train, and put the file and what describes it into the pack."""
    teacher = load_teacher(pack)
    native, *others = lessons_of(workdir, teacher)
    noise = Noise.of(teacher.schedule)
    torch.manual_seed(TORCH_SEED)
    factors = Factors(teacher.unet, RANK)

    def loss(moment: Moment) -> torch.Tensor:
        is_other = moment.rng.random() < OTHER_SIZE_SHARE
        lessons = others[moment.rng.integers(len(others))] if is_other and others else native
        before, after, index, words = lessons.batch(moment)
        weights, sample = factors.weights(), before.to(memory_format=torch.channels_last)
        predicted = functional_call(teacher.unet, weights, (sample, noise.timesteps[index], words)).sample
        return noise.error(predicted, noise.wanted(before, after, index), index)

    train(workdir, STAGE, factors, loss, RECIPE.limited(steps))
    write_few_step(workdir, factors, pack)


def write_few_step(workdir: Path, factors: Factors, pack: Path) -> None:
    """Write the averaged factors into the pack, and the entry `few_step` of its manifest.

    The revision stays: it is that of the weights of all other images, which this file does not change.
    """
    load_average(workdir, STAGE, factors)
    factors.save(pack / FILE, "unet")
    data, path = (pack / FILE).read_bytes(), pack / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["few_step"] = {
        "file": {"path": FILE, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)},
        "num_inference_steps": FEW_STEPS,
        "max_num_inference_steps": 2 * FEW_STEPS,
        "guidance_scale": 1.0,
        "scheduler": "ddim",
        "timestep_spacing": "trailing",
    }
    path.write_text(json.dumps(manifest, indent=2) + "\n")
