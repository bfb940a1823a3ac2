"""What one image is drawn from and what is recorded of a drawn image: the types that cross layers and processes.

`/generate` and dataset recipes make an `ImageSpec`; it travels to the engine as JSON, is the engine's payload, and is
what an image's lineage begins with. A new field of an image is added to `ImageSpec`, with a default for the JSON that
older releases wrote. Imports nothing of the application but the arithmetic of rows; all values are immutable, so any
thread may use them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, NamedTuple

from app.step_rows import Speed, TimestepSpacing, first_step, forecast_name, step_rows

OutputFormat = Literal["png", "jpeg", "webp"]
PromptSyntax = Literal["plain", "weighted"]
NoiseSchedulerName = Literal["pndm", "ddim", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm", "tcd"]

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
    "tcd": "TCD",
}

# The fields that release 0.3 did not have.
_LATER_FIELDS = frozenset(
    {"speed", "timestep_spacing", "timesteps", "guidance_interval", "prompt_syntax", "clip_skip"}
    | {"init_image", "mask", "strength", "mask_blur", "mask_invert", "loras", "embeddings", "model"}
)

# Pixels for each side of a latent, in every Stable Diffusion; an image's sides are multiples of it.
SIDE_MULTIPLE = 8
# The largest integer that every JSON reader keeps exactly.
MAX_SEED = 2**53 - 1
MAX_PROMPT_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class PictureRef:
    """A picture that an image is made from: an initial image, or a mask.

    Attributes:
        sha256: Of its size and its pixels as they are used, in hex (`app.storage.image_formats.pixels_sha256`).
        image_id: The stored image that it was; None: it came with the request.
    """

    sha256: str
    image_id: str | None = None


@dataclass(frozen=True, slots=True)
class LoraUse:
    """A LoRA and its weight; 0 changes nothing, 1 is as it was trained."""

    name: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class AdapterSet:
    """The LoRAs and embeddings under which an image is drawn, sorted: images of equal sets share forwards.

    Attributes:
        is_few_step: Whether the pack's few-step weights are among them.
    """

    loras: tuple[LoraUse, ...] = ()
    embeddings: tuple[str, ...] = ()
    is_few_step: bool = False

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self.loras or self.embeddings or self.is_few_step)


@dataclass(frozen=True, slots=True)
class FewStepSettings:
    """What a pack's few-step weights were trained for: the settings of `speed: fast` where a request has none.

    Attributes:
        max_num_inference_steps: More steps are refused.
        guidance_scale: At most 1: the weights have their guidance inside.
        timestep_spacing: Used where the request has no timesteps.
    """

    num_inference_steps: int
    max_num_inference_steps: int
    guidance_scale: float
    scheduler: NoiseSchedulerName
    timestep_spacing: TimestepSpacing


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
        speed: `balanced` forecasts some of the steps; `exact` and `fast` compute all of them, `fast` with the pack's
            few-step weights.
        timestep_spacing: Which timesteps the steps have; None: as the pack says.
        timesteps: All timesteps, strictly descending, `num_inference_steps` of them; None: by the spacing.
        guidance_interval: From and to, 0 to 1 as parts of the steps that are taken; outside of it steps are not guided.
            None: all.
        init_image: The picture to begin with, of this width and height; None: noise alone. The spec names it; its
            pixels come with the request to the engine.
        mask: Where `init_image` is repainted, of its size; None: everywhere.
        strength: With `init_image`: the share of the schedule that is taken, above 0 to 1; see `step_rows.first_step`.
        mask_blur: Standard deviation in pixels by which the mask was blurred; above 0 it has soft edges.
        mask_invert: Whether the mask was inverted.
        prompt_syntax: `weighted`: brackets in both prompts weigh their text, and long ones are read in chunks.
        clip_skip: Layers of the text encoder that are left out at its end; None: none is.
        loras: The LoRAs that are added to the model's weights.
        embeddings: Names of the textual-inversion embeddings whose tokens stand in a prompt.
        model: The name of the diffusion model; None: the node's default one.
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
    speed: Speed = "exact"
    timestep_spacing: TimestepSpacing | None = None
    timesteps: tuple[int, ...] | None = None
    guidance_interval: tuple[float, float] | None = None
    init_image: PictureRef | None = None
    mask: PictureRef | None = None
    strength: float | None = None
    mask_blur: float = 0.0
    mask_invert: bool = False
    prompt_syntax: PromptSyntax = "plain"
    clip_skip: int | None = None
    loras: tuple[LoraUse, ...] = ()
    embeddings: tuple[str, ...] = ()
    model: str | None = None

    def __post_init__(self) -> None:
        """Make values and tuples of what JSON has."""
        loras = (use if isinstance(use, LoraUse) else LoraUse(**use) for use in self.loras or ())
        object.__setattr__(self, "loras", tuple(loras))
        object.__setattr__(self, "embeddings", tuple(self.embeddings or ()))
        for name in ("timesteps", "guidance_interval"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))
        for name in ("init_image", "mask"):
            if isinstance(value := getattr(self, name), Mapping):
                object.__setattr__(self, name, PictureRef(value["sha256"], value.get("image_id")))

    @property
    def adapters(self) -> AdapterSet:
        """The LoRAs and embeddings, in the order of their names, and whether the few-step weights are added."""
        loras = tuple(sorted(self.loras, key=lambda use: use.name))
        return AdapterSet(loras, tuple(sorted(self.embeddings)), self.speed == "fast")

    @property
    def is_guided(self) -> bool:
        """Whether guided denoising steps take two rows."""
        return self.guidance_scale > 1

    @property
    def forecast(self) -> str | None:
        """The name of the forecast that stands in for some of the steps; None: all are computed."""
        return forecast_name(self.speed, self.scheduler, self.num_inference_steps - (self.first_step or 0))

    @property
    def first_step(self) -> int | None:
        """The first step of the schedule that is taken, from 0; None without an initial image."""
        return None if self.strength is None else first_step(self.num_inference_steps, self.strength)

    @property
    def step_rows(self) -> tuple[int, ...]:
        """The UNet rows of each step that is taken, 0 ... 2; see `app.step_rows`."""
        steps, interval = self.num_inference_steps, self.guidance_interval
        return step_rows(self.scheduler, steps, self.is_guided, self.speed, interval, self.strength)

    @property
    def pixel_steps(self) -> int:
        """The work that limits and quotas count: steps x width x height, where two rows are a step.

        A step without guidance counts half, and one that is forecast nothing. The step that `pndm` takes twice is not
        counted twice.
        """
        pixels = self.width * self.height
        return min(self.num_inference_steps * pixels, sum(self.step_rows) * pixels // 2)

    def with_seed(self, seed: int) -> "ImageSpec":
        """Return the same image under another seed."""
        return replace(self, seed=seed)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, in their order.

        Settings of `_LATER_FIELDS` that are not used are left out: they are part of an image's file, and the files of
        older releases can be made again, byte by byte.
        """
        values = {
            name: value for name, value in asdict(self).items() if name not in _LATER_FIELDS or value != _default(name)
        }
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

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


class DrawnBy(NamedTuple):
    """The model that draws images, by the name that requests have for it, and the version of its weights."""

    name: str
    revision: str


class RenderedImage(NamedTuple):
    """One image as a file in memory, with what is recorded of it."""

    data: bytes
    info: ImageInfo


def _default(name: str) -> object:
    return next(field.default for field in fields(ImageSpec) if field.name == name)


def _fields_in(cls: type[ImageSpec] | type[ImageInfo], values: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(cls) if field.name in values}
