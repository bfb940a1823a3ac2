"""Pictures of images under way: the fitted colours of a model on disk, and the thread that encodes previews.

The device thread hands over what a step predicts; one thread of this module copies it from the device, maps it to
colours and encodes a PNG of the latents' size. At most one preview of an image waits for that thread; a step whose
preview would be the second is reported without one. Imports neither HTTP nor SQL.
"""

import asyncio
import io
import json
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from app.engine.diffusion.previews import LatentColours, PreviewTap
from app.modelpacks.pack import ModelPack, sha256_of

logger = logging.getLogger(__name__)

# Of what is fitted and how; another number invalidates old files.
FORMAT = 1

MAX_BYTES = 64 * 1024


class ReportStep(Protocol):
    """What is called after a step: the steps done, those to do in all, and a PNG where a preview is due."""

    def __call__(self, done: int, steps: int, preview: bytes | None = None, /) -> object: ...  # noqa: D102


class ColoursFile:
    """The file with the colours of one VAE."""

    def __init__(self, path: Path, vae_sha256: str) -> None:
        """Name the file, which need not exist, and the weights that it must be of."""
        self._path = path
        self._vae_sha256 = vae_sha256

    def read(self) -> LatentColours | None:
        """Return the colours; None if there are no valid ones of these weights."""
        try:
            with self._path.open("rb") as file:
                content = json.loads(file.read(MAX_BYTES))
            if (content["format"], content["vae_sha256"]) != (FORMAT, self._vae_sha256):
                return None
            matrix, bias = np.array(content["matrix"], np.float32), np.array(content["bias"], np.float32)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        is_sound = matrix.ndim == 2 and matrix.shape[1:] == bias.shape == (3,) and np.isfinite([*matrix, bias]).all()
        return LatentColours(matrix, bias) if is_sound else None

    def write(self, colours: LatentColours) -> None:
        """Replace the file atomically; if that fails, the next start fits again."""
        content = {
            "format": FORMAT,
            "vae_sha256": self._vae_sha256,
            "matrix": [[round(float(weight), 6) for weight in row] for row in colours.matrix],
            "bias": [round(float(value), 6) for value in colours.bias],
        }
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(content, indent=1) + "\n")
            os.replace(part, self._path)
        except OSError:
            logger.info("The colours of previews could not be stored. The next start fits them again.")


def find_colours(pack: ModelPack, models_dir: Path, fit: Callable[[], LatentColours]) -> LatentColours | None:
    """Return the colours that lie beside the pack or among the models, else fit and store them.

    Args:
        pack: The model's pack.
        models_dir: Where fitted colours are kept.
        fit: Fits them on a few decoded latents.

    Returns:
        None where fitting failed, which the log says: then no previews are sent.
    """
    weights = sorted((pack.part("diffusion") / "vae").glob("*.safetensors"))
    vae_sha256 = sha256_of(weights[0]) if weights else ""
    shipped = ColoursFile(shipped_colours(pack), vae_sha256).read()
    if shipped is not None:
        return shipped
    file = ColoursFile(models_dir / f"previews-{vae_sha256[:16]}.json", vae_sha256)
    known = file.read() if weights else None
    if known is not None:
        return known
    try:
        colours = fit()
    except Exception:
        logger.warning("The colours of previews could not be fitted. No previews are sent.", exc_info=True)
        return None
    if weights:
        file.write(colours)
    return colours


def shipped_colours(pack: ModelPack) -> Path:
    """Return where colours lie that were fitted when a pack was built, whether there are any or not."""
    return pack.folder.with_name(f"{pack.folder.name}-previews.json")


class Previews:
    """Encodes previews on a thread of its own."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="previews")

    def tap(self, colours: LatentColours, every: int, report: ReportStep) -> PreviewTap:
        """Return the `on_step` of one image, which reports every n-th step with its preview.

        Args:
            colours: Of the image's model.
            every: n, >= 1.
            report: Called by the device thread, or by this module's for steps with a preview. A step with a preview may
                be reported after the step behind it.
        """
        is_busy = False  # read and set by the device thread, cleared by the encoding one

        def encode(done: int, steps: int, x0: torch.Tensor) -> None:
            nonlocal is_busy
            preview = None
            try:
                preview = encode_preview(colours, x0)
            except Exception:
                logger.exception("A preview could not be encoded.")
            finally:
                is_busy = False
            report(done, steps, preview)

        def on_preview(done: int, steps: int, x0: torch.Tensor) -> None:
            nonlocal is_busy
            if is_busy:
                report(done, steps)
                return
            is_busy = True
            self._pool.submit(encode, done, steps, x0)

        return PreviewTap(every, report, on_preview)

    def close(self) -> None:
        """Drop the previews that wait; for after the engine is closed."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def encode_preview(colours: LatentColours, x0: torch.Tensor) -> bytes:
    """Return a PNG of predicted latents, a pixel for each of theirs.

    Shapes:
        x0: (C, h, w) float32, on any device.
    """
    buffer = io.BytesIO()
    Image.fromarray(colours.pixels(x0.cpu().numpy())).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def on_this_loop(call: Callable[..., object]) -> Callable[..., None]:
    """Return a function for other threads, which must not wait for this event loop, that calls one on it."""
    loop = asyncio.get_running_loop()

    def call_there(*arguments: object) -> None:
        loop.call_soon_threadsafe(call, *arguments)

    return call_there
