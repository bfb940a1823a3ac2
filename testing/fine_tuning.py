"""A tiny backbone with random weights, small pictures of two classes, and a plan for them; a child process to kill.

`python -m testing.fine_tuning FOLDER SAID`: carries out `FOLDER/plan.json`; `SAID` is a `Kill` as JSON.
"""

import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from app.engine.request import EngineRequest
from app.finetuning.checkpoints import PLAN
from app.finetuning.plan import BackboneSpec, Example, FineTunePlan
from app.finetuning.runner import EpochPayload, EpochResult, FineTuneRunner, ModelPayload, ModelResult
from app.finetuning.session import FineTune
from app.finetuning.settings import FineTuneSettings
from testing.kills import Kill, arm, die

CPU = torch.device("cpu")
SIDE = 32
PREPROCESSING = {"resize": 36, "crop": SIDE, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
MODEL = "model.safetensors"


def decode(data: bytes) -> Image.Image:
    """Decode a picture of the tests."""
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except OSError as error:
        raise ValueError("no picture") from error


def write_backbone(path: Path, architecture: str = "test_efficientnet") -> dict[str, torch.Tensor]:
    """Write random weights whose batch normalisations have measured what flows through them."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    model = timm.create_model(architecture, pretrained=False, num_classes=0, **_options(architecture))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over all batches
    with torch.no_grad():
        model.train()(torch.randn(32, 3, SIDE, SIDE, generator=generator))
    state: dict[str, torch.Tensor] = model.state_dict()
    save_file(state, path)
    return state


def write_backbone_folder(folder: Path) -> Path:
    """Write a backbone of random weights in the layout of timm's hub; return the folder."""
    folder.mkdir(parents=True)
    write_backbone(folder / MODEL)
    config = {"input_size": [3, SIDE, SIDE], "mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 0.9}
    settings = {"architecture": "test_efficientnet", "num_classes": 0, "pretrained_cfg": config}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def _options(architecture: str) -> dict[str, Any]:
    return {"img_size": SIDE} if "vit" in architecture else {}


def write_pictures(folder: Path, count: int, *, seed: int) -> tuple[Example, ...]:
    """Write small pictures of two classes in turn: noise that is redder in the second."""
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.random.default_rng(seed)
    examples = []
    for index in range(count):
        pixels = dice.integers(0, 200, (40, 44, 3), dtype=np.uint8)
        pixels[..., 0] += np.uint8(40 * (index % 2))
        path = folder / f"{index}.png"
        Image.fromarray(pixels).save(path)
        examples.append(Example(path, index % 2, f"{seed}-{index}"))
    return tuple(examples)


def make_plan(folder: Path, *, architecture: str = "test_efficientnet", **settings: Any) -> FineTunePlan:
    """Make a plan of 14 pictures to train on and 6 to validate, in batches of 4, three epochs unless said otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    write_backbone(folder / "backbone.safetensors", architecture)
    chosen = {"mode": "last_block", "epochs": 3, "batch_size": 4, "lr": 0.05, **settings}
    return FineTunePlan(
        backbone=BackboneSpec("timm", architecture, _options(architecture)),
        weights=folder / "backbone.safetensors",
        weights_sha256="tiny",
        preprocessing=PREPROCESSING,
        classes=("green", "red"),
        train=write_pictures(folder / "train", 14, seed=1),
        validation=write_pictures(folder / "validation", 6, seed=2),
        settings=FineTuneSettings(**chosen),
    )


def make_session(plan: FineTunePlan, pool: ThreadPoolExecutor) -> FineTune:
    """Open a plan on the CPU."""
    return FineTune(plan, device=CPU, decode=decode, pool=pool)


def run_epoch(session: FineTune) -> None:
    """Train the next epoch."""
    session.begin_epoch(len(session.progress.epochs) + 1)
    while not session.is_epoch_done:
        session.step()
    session.end_epoch()


def take(runner: FineTuneRunner, payload: EpochPayload | ModelPayload) -> Any:
    """Carry out a request as the engine does, on this thread."""
    request = EngineRequest("fine-tune", payload)
    runner.prepare(request)
    runner.step([request])
    while not runner.is_finished(request):
        runner.step([request])
    return runner.finish(request)


def carry_out(plan: FineTunePlan, folder: Path, *, die_in_step: int = 0) -> ModelResult:
    """Train to the end from wherever the files are, and write the model; with `die_in_step` end in epoch 2."""
    runner = FineTuneRunner(device=CPU, decode=decode)
    try:
        for epoch in range(1, plan.settings.epochs + 1):
            if die_in_step and epoch == 2:
                _die_in(runner, EpochPayload(plan, folder, epoch), die_in_step)
            result: EpochResult = take(runner, EpochPayload(plan, folder, epoch))
            if result.is_over:
                break
        finished: ModelResult = take(runner, ModelPayload(plan, folder, folder / MODEL, plan.validation))
        return finished
    finally:
        runner.close()


def _die_in(runner: FineTuneRunner, payload: EpochPayload, step: int) -> None:
    request = EngineRequest("fine-tune", payload)
    runner.prepare(request)
    for _ in range(step):
        runner.step([request])
    die()


def _main(folder: Path, said: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    plan = FineTunePlan.from_bytes((folder / PLAN).read_bytes())
    if "step" in said:
        carry_out(plan, folder, die_in_step=said["step"])
    arm(Kill("rename", tuple(said["words"]), said["nth"]))
    carry_out(plan, folder)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), json.loads(sys.argv[2]))
