"""What an image brings to the engine besides its spec, and what is made of its pixels afterwards.

Imports neither HTTP nor SQL; pure but for the encoding, which runs on a pool thread.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from app.engine.clip.runner import ClipScores
from app.engine.diffusion.runner import GeneratedImage
from app.engine.diffusion.texts.weighted_prompts import MAX_CHUNKS
from app.image_spec import FewStepSettings, ImageInfo, ImageSpec, OutputFormat
from app.modelpacks.pack import ModelPack
from app.services.inference.diffusion.models import LoadedModel
from app.services.inference.loaded import Runtime
from app.storage.image_formats import encode_image

# Of CLIP's text encoder in every Stable Diffusion 1.x, without the start and the end of the text.
_CHUNK_TOKENS = 75


@dataclass(frozen=True, slots=True, eq=False)
class SourcePictures:
    """The pictures that an image is made from, at its size.

    Shapes:
        image: (H, W, 3), uint8. mask: (H, W), uint8, 255 where the image is repainted; None: everywhere.
    """

    image: np.ndarray
    mask: np.ndarray | None = None


def lineage_of(
    spec: ImageSpec, pack: ModelPack, runtime: Runtime, model: LoadedModel, adapter_files: Mapping[str, str]
) -> dict[str, Any]:
    """Return what is recorded with the image, in its row and in its file: what its pixels depend on."""
    files = {"model_files": dict(model.files), "adapter_files": dict(adapter_files)}
    forecast = {} if spec.speed == "exact" else {"forecast": spec.forecast}
    few_step = {"few_step_sha256": pack.few_step.file.sha256} if spec.speed == "fast" and pack.few_step else {}
    return {
        **spec.to_json(),
        **forecast,
        **few_step,
        "pack": model.name or pack.name,
        "pack_revision": pack.revision if model.revision is None else model.revision,
        "device": runtime.device,
        "dtype": runtime.dtype,
        "num_threads": runtime.num_threads,
        "deterministic": runtime.deterministic,
        "compiled": runtime.compiled and model.name is None,
        "versions": runtime.versions,
        **{name: hashes for name, hashes in files.items() if hashes},
    }


def encode(pixels: np.ndarray, output_format: OutputFormat, lineage: dict[str, Any]) -> tuple[bytes, str]:
    """Return an image's file and its SHA-256. **Shapes**: (H, W, 3), uint8."""
    data = encode_image(pixels, output_format, lineage)
    return data, hashlib.sha256(data).hexdigest()


def info_of(
    image: GeneratedImage,
    spec: ImageSpec,
    pack: ModelPack,
    *,
    sha256: str,
    num_bytes: int,
    lineage: dict[str, Any],
    scores: dict[str, Any],
) -> ImageInfo:
    """Return what is recorded of an image; `scores` are the fields of `clip_fields`, or none."""
    return ImageInfo(
        sha256=sha256,
        flagged=image.flagged,
        lineage=lineage,
        warnings=warnings_of(image, spec, pack.few_step.settings if pack.few_step else None),
        timings={name: round(getattr(image, name), 3) for name in ("queued_ms", "denoising_ms", "decoding_ms")},
        num_bytes=num_bytes,
        **scores,
    )


def clip_fields(scores: ClipScores, labels: Sequence[str], logits: Sequence[float]) -> dict[str, Any]:
    """Return the fields of `ImageInfo` that CLIP gives.

    Args:
        scores: Of the image; its last text is the prompt.
        labels: Texts that the image was scored against; may be empty.
        logits: Of each label.
    """
    probabilities = torch.tensor(logits).softmax(dim=0).tolist()
    pairs = zip(labels, probabilities, strict=True)
    return {
        "clip_score": 100 * max(scores.cosines[-1], 0.0),
        "label_probabilities": [{"label": label, "probability": probability} for label, probability in pairs] or None,
        "clip_embedding": base64.b64encode(scores.image_embed.astype("<f2").tobytes()).decode(),
    }


def warnings_of(
    image: GeneratedImage, spec: ImageSpec, few_step: FewStepSettings | None = None
) -> list[dict[str, str]]:
    """Return a warning for each prompt whose end is not used, and for settings that few-step weights do not know."""
    used = MAX_CHUNKS * _CHUNK_TOKENS if spec.prompt_syntax == "weighted" else _CHUNK_TOKENS + 2
    cuts = {"prompt_truncated": image.prompt_cut, "negative_prompt_truncated": image.negative_prompt_cut}
    warnings = [
        {"code": code, "detail": f"Only {used} tokens are used. Cut off: {cut}"} for code, cut in cuts.items() if cut
    ]
    if spec.speed == "fast" and few_step is not None and (names := _untrained(spec, few_step)):
        detail = f"Speed fast was trained for other settings than these: {', '.join(names)}. Leave them out."
        warnings.append({"code": "fast_settings", "detail": detail})
    return warnings


def _untrained(spec: ImageSpec, few_step: FewStepSettings) -> list[str]:
    """Return the names of the settings that differ from those that the few-step weights were trained for."""
    names = ("num_inference_steps", "scheduler", "timestep_spacing")
    return [name for name in names if getattr(spec, name) != getattr(few_step, name)]
