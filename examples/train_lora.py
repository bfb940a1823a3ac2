"""A LoRA for a model of Stable Diffusion 1.x, from a folder of pictures: a style, or a thing that it does not know.

    PICTURES=photos NAME=my-style python examples/train_lora.py

Each picture may have a text file of its name beside it with the prompt that should give it; else its folder's name is
the prompt. The LoRA is written to NAME.safetensors: put it into the node's FOXHOUND_LORAS_DIR. Needs no running node,
and downloads nothing. Started again with the same settings, it goes on from its last checkpoint.

Settings: PICTURES, NAME, MODEL (a diffusers folder; default: the demo pack), STEPS, BATCH, RANK, RATE (learning rate),
LAYERS (`attention`, or `all` for a strong style), SEED, DEVICE.
"""

import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image, ImageOps
from safetensors.torch import save_file
from torch import nn
from torch.func import functional_call
from torchvision.transforms.functional import pil_to_tensor
from transformers import CLIPTextModel, CLIPTokenizer

from app.modelpacks.pack import demo_pack_folder

PICTURES = Path(os.environ.get("PICTURES", "photos"))
NAME = os.environ.get("NAME", "my-style")
MODEL = Path(os.environ.get("MODEL", demo_pack_folder() / "diffusion"))
STEPS, BATCH, RANK, SEED = (
    int(os.environ.get(name, default)) for name, default in (("STEPS", 800), ("BATCH", 8), ("RANK", 8), ("SEED", 0))
)
RATE = float(os.environ.get("RATE", "1e-4"))
LAYERS = os.environ.get("LAYERS", "attention")
DEVICE = os.environ.get("DEVICE", "cuda" if torch.cuda.is_available() else "cpu")

ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
# Without a prompt the model must learn the style too: guidance compares with that.
EMPTY_PROMPTS = 0.1
CHECKPOINT_EVERY = 50
SETTINGS = {"pictures": str(PICTURES), "model": str(MODEL), "batch": BATCH, "rank": RANK, "rate": RATE} | {
    "layers": LAYERS,
    "seed": SEED,
}


class Lora(nn.Module):
    """Two factors for each chosen layer of a network; their product, which starts at 0, is added to its weight."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.layers = {
            name: layer.weight
            for name, layer in network.named_modules()
            if isinstance(layer, nn.Linear | nn.Conv2d)
            and isinstance(layer.weight, torch.Tensor)
            and (LAYERS == "all" or name.endswith(ATTENTION))
        }
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        for weight in self.layers.values():
            rank = min(RANK, len(weight), weight[0].numel())
            self.down.append(torch.empty(rank, weight[0].numel()))
            nn.init.kaiming_uniform_(self.down[-1], a=math.sqrt(5))
            self.up.append(torch.zeros(len(weight), rank))

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the network's weights with the products added."""
        factors = zip(self.layers.items(), self.up, self.down, strict=True)
        return {f"{name}.weight": weight + (up @ down).reshape(weight.shape) for (name, weight), up, down in factors}

    def save(self, path: Path) -> None:
        """Write the factors as diffusers does."""
        tensors = {}
        for (name, weight), up, down in zip(self.layers.items(), self.up, self.down, strict=True):
            kernel = weight.shape[2:]
            tensors[f"unet.{name}.lora_A.weight"] = down.detach().reshape(len(down), *weight.shape[1:])
            tensors[f"unet.{name}.lora_B.weight"] = up.detach().reshape(*up.shape, *(1 for _ in kernel))
        part = path.with_suffix(".part")
        save_file({key: value.half().cpu().contiguous() for key, value in tensors.items()}, part)
        part.replace(path)


def load_model() -> tuple[Any, Any, Any, Any, Any]:
    """Return UNet, VAE, text encoder, tokenizer and noise schedule; the models in float32, and never changed."""
    loaded = [
        model.from_pretrained(MODEL / name, local_files_only=True, dtype=torch.float32)
        .to(DEVICE)
        .eval()
        .requires_grad_(False)
        for model, name in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"), (CLIPTextModel, "text_encoder"))
    ]
    schedule = DDPMScheduler.from_config(json.loads((MODEL / "scheduler" / "scheduler_config.json").read_text()))
    return *loaded, CLIPTokenizer.from_pretrained(MODEL / "tokenizer", local_files_only=True), schedule


def read_pictures() -> list[tuple[Path, str]]:
    """Return each picture with its prompt."""
    paths = sorted(path for path in PICTURES.rglob("*") if path.suffix.lower() in ENDINGS)
    texts = [path.with_suffix(".txt") for path in paths]
    return [
        (path, text.read_text().strip() if text.exists() else path.parent.name)
        for path, text in zip(paths, texts, strict=True)
    ]


@torch.no_grad()
def encode_picture(vae: Any, path: Path, side: int) -> torch.Tensor:
    """Return a picture's latents, cut to a square. Shape (1, 4, side / 8, side / 8)."""
    picture = ImageOps.fit(Image.open(path).convert("RGB"), (side, side), Image.Resampling.LANCZOS)
    pixels = pil_to_tensor(picture)[None].to(DEVICE).float() / 127.5 - 1
    latents: torch.Tensor = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
    return latents


@torch.no_grad()
def encode_prompt(tokenizer: Any, text_encoder: Any, prompt: str) -> torch.Tensor:
    """Return a prompt's embeddings. Shape (1, 77, D)."""
    ids = tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    embeddings: torch.Tensor = text_encoder(ids.to(DEVICE)).last_hidden_state
    return embeddings


class Lessons:
    """The pictures and prompts as a model sees them, encoded once."""

    def __init__(self) -> None:
        pairs = read_pictures()
        self.unet, vae, text_encoder, tokenizer, self.schedule = load_model()
        side = self.unet.config.sample_size * 8
        prompts = ["", *sorted({prompt for _, prompt in pairs})]
        self.latents = torch.cat([encode_picture(vae, path, side) for path, _ in pairs])
        self.words = torch.cat([encode_prompt(tokenizer, text_encoder, prompt) for prompt in prompts])
        self.own_words = torch.tensor([prompts.index(prompt) for _, prompt in pairs])

    def loss(self, step: int, lora: Lora) -> torch.Tensor:
        """Return the error of the noise that the model predicts in some pictures."""
        # Each step has random numbers of its own, so a run that was interrupted ends with the same LoRA.
        torch.manual_seed(zlib.crc32(f"{SEED} {step}".encode()))
        chosen = torch.randint(len(self.latents), (BATCH,))
        said = self.own_words[chosen].where(torch.rand(BATCH) >= EMPTY_PROMPTS, torch.tensor(0))
        timesteps = torch.randint(self.schedule.config.num_train_timesteps, (BATCH,)).to(DEVICE)
        latents = self.latents[chosen]
        noise = torch.randn(latents.shape).to(DEVICE)
        noisy = self.schedule.add_noise(latents, noise, timesteps)
        is_velocity = self.schedule.config.prediction_type == "v_prediction"
        wanted = self.schedule.get_velocity(latents, noise, timesteps) if is_velocity else noise
        weights = lora.weights()
        with torch.autocast("cuda", torch.bfloat16, enabled=DEVICE.startswith("cuda")):
            predicted = functional_call(self.unet, weights, (noisy, timesteps, self.words[said])).sample
        error: torch.Tensor = (predicted.float() - wanted).square().mean()
        return error


def train(lessons: Lessons, lora: Lora, checkpoint: Path) -> None:
    """Train, from the checkpoint where there is one of these settings."""
    optimizer, step = torch.optim.AdamW(lora.parameters(), RATE), 0
    if checkpoint.exists() and (kept := torch.load(checkpoint, map_location=DEVICE))["settings"] == SETTINGS:
        lora.load_state_dict(kept["lora"])
        optimizer.load_state_dict(kept["optimizer"])
        step = kept["step"]
    while step < STEPS:
        # In the last fifth of the steps they become ever smaller.
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, 5 * (1 - step / STEPS))
        loss = lessons.loss(step, lora)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step += 1
        if step == 1 or step % 10 == 0:
            print(f"step {step} of {STEPS}: loss {loss.item():.4f}")
        if step % CHECKPOINT_EVERY == 0 or step == STEPS:
            parts = {"lora": lora.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**parts, "step": step, "settings": SETTINGS}, f"{checkpoint}.part")
            os.replace(f"{checkpoint}.part", checkpoint)


def main() -> None:
    """Train and write the LoRA."""
    lessons = Lessons()
    torch.manual_seed(SEED)
    lora = Lora(lessons.unet).to(DEVICE)
    train(lessons, lora, Path(f"{NAME}.checkpoint"))
    output = Path(f"{NAME}.safetensors")
    lora.save(output)
    print(f"saved {output}: {output.stat().st_size / 1e6:.1f} MB, of {len(lessons.latents)} pictures")


if __name__ == "__main__":
    main()
