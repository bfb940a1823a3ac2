"""What one image is drawn from and what is recorded of a drawn image: the types that cross layers and processes.

`/generate` and dataset recipes make an `ImageSpec`; it travels to the engine as JSON, is the engine's payload, and is
what an image's lineage begins with. A new field of an image is added to `ImageSpec`, with a default for the JSON that
older releases wrote. Imports nothing of the application; all values are immutable, so any thread may use them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, NamedTuple

OutputFormat = Literal["png", "jpeg", "webp"]
NoiseSchedulerName = Literal["pndm", "ddim", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm"]

# Each noise scheduler's name in the `parameters` text that AUTOMATIC1111's web UI and its successors read.
SAMPLER_NAMES: Mapping[NoiseSchedulerName, str] = {
    "pndm": "PLMS",
    "ddim": "DDIM",
    "euler": "Euler",
    "euler_a": "Euler a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_karras": "DPM++ 2M Karras",
    "unipc": "UniPC",
    "lcm": "LCM",
}

# Pixels for each side of a latent, in every Stable Diffusion; an image's sides are multiples of it.
SIDE_MULTIPLE = 8
# The largest integer that every JSON reader keeps exactly.
MAX_SEED = 2**53 - 1
MAX_PROMPT_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """One image to draw: two equal specs on the same models and device give the same file.

    Attributes:
        guidance_scale: Above 1 every step is guided (two rows); else the negative prompt has no effect.
        num_inference_steps: Denoising steps, >= 1.
        width: Pixels, a multiple of `SIDE_MULTIPLE`.
        height: Pixels, a multiple of `SIDE_MULTIPLE`.
        seed: 0 ... `MAX_SEED`. torch's generator on the CPU uses the lowest 32 bits of it.
        scheduler: The noise scheduler's name; the engine refuses one that it does not have.
        output_format: The file's format; the engine does not use it.
    """

    prompt: str
    negative_prompt: str = ""
    guidance_scale: float = 7.5
    num_inference_steps: int = 50
    width: int = 512
    height: int = 512
    seed: int = 0
    scheduler: str = "pndm"
    output_format: OutputFormat = "png"

    @property
    def is_guided(self) -> bool:
        """Whether a denoising step takes two rows."""
        return self.guidance_scale > 1

    @property
    def pixel_steps(self) -> int:
        """The work that limits and quotas count: steps x width x height."""
        return self.num_inference_steps * self.width * self.height

    def with_seed(self, seed: int) -> "ImageSpec":
        """Return the same image under another seed."""
        return replace(self, seed=seed)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, in their order."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ImageSpec":
        """Return the spec that JSON values hold: of a message, a lineage or recorded parameters.

        Keys that are no field are ignored; a field that is not there has its default.

        Raises:
            TypeError: There is no prompt.
        """
        return cls(**_fields_in(cls, values))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """What is recorded of a drawn image beside its bytes.

    Attributes:
        sha256: Of the file, in hex.
        flagged: The safety checker's verdict; None where the pack has no checker.
        lineage: The spec's fields, the pack and its revision, device, number format and versions.
        warnings: `code` and `detail` of each, for the client.
        timings: `queued_ms`, `denoising_ms` and `decoding_ms`.
        clip_score: 100 x the cosine of image and prompt, at least 0; None without labels.
        label_probabilities: `label` and `probability` of each label; None without labels.
        clip_embedding: CLIP's embedding of the image, little-endian float16 in base64: two bytes a number, and plain
            JSON. None without labels, and in what older releases recorded.
        num_bytes: Of the file.
    """

    sha256: str
    flagged: bool | None
    lineage: dict[str, Any]
    warnings: list[dict[str, str]]
    timings: dict[str, float]
    clip_score: float | None = None
    label_probabilities: list[dict[str, Any]] | None = None
    clip_embedding: str | None = None
    num_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, in their order."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ImageInfo":
        """Return the info that JSON values hold.

        Raises:
            TypeError: A field without a default is not there.
        """
        return cls(**_fields_in(cls, values))


class RenderedImage(NamedTuple):
    """One image as a file in memory, with what is recorded of it."""

    data: bytes
    info: ImageInfo


def _fields_in(cls: type[ImageSpec] | type[ImageInfo], values: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(cls) if field.name in values}
