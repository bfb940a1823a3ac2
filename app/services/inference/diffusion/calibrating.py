"""Measures a diffusion model when it is loaded, unless a file has the result of an earlier start.

Imports neither HTTP nor SQL. Runs on the thread that loads the model; what was disturbed is measured again on the
device thread.
"""

import os
import platform
from collections.abc import Callable
from dataclasses import asdict

import torch

from app.engine.diffusion.calibration import Calibration
from app.engine.diffusion.denoiser import ForwardSize
from app.engine.diffusion.options import DenoisingOptions
from app.engine.diffusion.runner import DiffusionRunner
from app.engine.engine import Engine
from app.modelpacks.pack import ModelPack, sha256_of
from app.services.inference.diffusion.calibration_store import CalibrationFile, is_busy
from app.services.inference.diffusion.choice import DiffusionChoice
from app.services.inference.diffusion.remeasuring import Remeasuring


def calibrate(
    runner: DiffusionRunner, pack: ModelPack, options: DenoisingOptions, choice: DiffusionChoice
) -> Calibration:
    """Return the stored calibration of the same circumstances, or measure the model and store the result."""
    file = _file(pack, options, choice)
    known = file.read()
    was_busy = is_busy()
    calibration = runner.calibrate(pack.native_size, pack.native_size, known)
    if calibration is not known and not calibration.is_disturbed and not was_busy:
        file.write(calibration)
    return calibration


def measure_again_when_idle(
    engine: Engine,
    runner: DiffusionRunner,
    pack: ModelPack,
    options: DenoisingOptions,
    choice: DiffusionChoice,
    on_measured: Callable[[Calibration], object],
) -> None:
    """Let the device measure a model's sizes again where a measurement was disturbed; on the CPU alone.

    Args:
        engine: Runs the forwards while it is idle.
        runner: The model.
        pack: The model's.
        options: As for `calibrate`.
        choice: As for `calibrate`.
        on_measured: Called on the device thread with the undisturbed calibration of the native size.
    """
    if choice.device.type != "cpu":
        return
    native, file = runner.size_of(pack.native_size, pack.native_size), _file(pack, options, choice)

    def keep(size: ForwardSize, calibration: Calibration) -> None:
        if size == native:
            file.write(calibration)
            on_measured(calibration)

    engine.add_idle_work(Remeasuring(runner, keep))


def _file(pack: ModelPack, options: DenoisingOptions, choice: DiffusionChoice) -> CalibrationFile:
    circumstances = {
        "format": 3,  # of what is measured and how; another number invalidates old files
        "revision": pack.revision,
        "unet": _architecture_of(pack),
        "runtime": asdict(choice.runtime),
        "processor": [platform.machine(), os.cpu_count(), torch.backends.cpu.get_cpu_capability()],
        "sizes": options.sizes,
        "graphs": options.record is not None,
    }
    return CalibrationFile(choice.models_dir / f"calibration-{pack.name}.json", circumstances)


def _architecture_of(pack: ModelPack) -> str:
    """Return what a calibration depends on of the weights: the UNet's configuration."""
    part = pack.part("diffusion")
    folder = part.with_suffix("") if part.is_file() else part
    config = folder / "unet" / "config.json"
    return sha256_of(config) if config.is_file() else "stable-diffusion-1"
