"""Bodies and answers under `/sdapi/v1`. Imports no services; pure."""

from typing import Annotated

from pydantic import Field

from app.api.compat.requests import Lenient
from app.image_spec import MAX_PROMPT_CHARS, MAX_SEED
from app.schemas.common import Response, Storable
from app.schemas.source_images import MAX_MASK_BLUR

_Image = Annotated[str, Field(max_length=27_500_000, description="In base64, or a data URI.")]
_Word = Annotated[str, Field(max_length=256)]
_Side = Annotated[int, Field(ge=1, le=16_384, description="Pixels; mapped to the nearest size that is drawn.")]
_Text = Annotated[str, Field(max_length=MAX_PROMPT_CHARS), Storable]


class OverrideSettings(Lenient):
    """Options for one request; all but the checkpoint are ignored."""

    sd_model_checkpoint: _Word | None = Field(None, description="One of `/sdapi/v1/sd-models`.")


class Txt2ImgBody(Lenient):
    """A prompt and how to draw it; of dozens of further fields those that change the picture are named in `info`."""

    prompt: _Text
    negative_prompt: _Text | None = None
    seed: Annotated[int, Field(ge=-1, le=MAX_SEED, description="-1: one is drawn.")] | None = None
    steps: Annotated[int, Field(ge=1, le=150)] = 20
    cfg_scale: Annotated[float, Field(ge=0, le=30)] = 7.0
    width: _Side | None = None
    height: _Side | None = None
    batch_size: Annotated[int, Field(ge=1, le=16)] = 1
    n_iter: Annotated[int, Field(ge=1, le=16)] = 1
    sampler_name: _Word | None = None
    sampler_index: _Word | None = None
    scheduler: _Word | None = None
    send_images: bool = True
    override_settings: OverrideSettings | None = None
    strict: bool = Field(False, description="Whether to refuse what cannot be honoured; else `info` names it.")

    # Not honoured; read so that they can be named.
    enable_hr: bool | None = None
    restore_faces: bool | None = None
    tiling: bool | None = None
    subseed_strength: Annotated[float, Field(ge=0, le=1)] | None = None
    styles: Annotated[list[_Word], Field(max_length=100)] | None = None
    script_name: _Word | None = None
    refiner_checkpoint: _Word | None = None


class Img2ImgBody(Txt2ImgBody):
    """A picture, a prompt, and how the picture is changed; further fields as in `Txt2ImgBody`."""

    init_images: Annotated[list[_Image], Field(min_length=1, max_length=16, description="The first one is changed.")]
    mask: _Image | None = Field(None, description="White is repainted.")
    denoising_strength: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="Default: 0.75.")
    mask_blur: Annotated[float, Field(ge=0, le=MAX_MASK_BLUR)] = 4
    inpainting_mask_invert: Annotated[int, Field(ge=0, le=1, description="1: black is repainted.")] = 0

    # Not honoured; read so that they can be named.
    resize_mode: Annotated[int, Field(ge=0, le=3)] | None = None
    inpainting_fill: Annotated[int, Field(ge=0, le=3)] | None = None
    inpaint_full_res: bool | Annotated[int, Field(ge=0, le=1)] | None = None


class Txt2ImgParameters(Response):
    """What was drawn."""

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    cfg_scale: float
    width: int
    height: int
    batch_size: int
    n_iter: int
    sampler_name: str
    denoising_strength: float | None = None


class Txt2ImgRead(Response):
    """The images."""

    images: list[str] = Field(description="In base64.")
    parameters: Txt2ImgParameters
    info: str = Field(description="JSON, as the web UI writes it, with `warnings` besides.")


class OptionsRead(Response):
    """The options that clients read."""

    sd_model_checkpoint: str
    sd_checkpoint_hash: str
    sd_vae: str = "Automatic"
    samples_format: str = "png"
    CLIP_stop_at_last_layers: int = 1


class OptionsBody(Lenient):
    """Options to set; all but the checkpoint are ignored."""

    sd_model_checkpoint: _Word | None = None


class NothingRead(Response):
    """An empty object."""


class SamplerOptions(Response):
    """The options of a sampler: none."""


class SamplerRead(Response):
    """A noise scheduler."""

    name: str
    aliases: list[str]
    options: SamplerOptions = SamplerOptions()


class SchedulerRead(Response):
    """A spacing of timesteps."""

    name: str
    label: str
    aliases: list[str] | None = None
    default_rho: float = -1
    need_inner_model: bool = False


class CheckpointRead(Response):
    """A model that draws."""

    title: str
    model_name: str
    hash: str
    sha256: str | None = None
    filename: str
    config: str | None = None


class NamedRead(Response):
    """An entry with a name; this node has none."""

    name: str


class LoraEntry(Response):
    """A LoRA that requests can name as `<lora:NAME:WEIGHT>` in the prompt."""

    name: str
    alias: str
    path: str
    metadata: NothingRead = NothingRead()


class ScriptsRead(Response):
    """The scripts: none."""

    txt2img: list[str]
    img2img: list[str]


class MemoryRead(Response):
    """Of memory, which this node measures in `/metrics`."""

    ram: NothingRead = NothingRead()
    cuda: NothingRead = NothingRead()


class StateRead(Response):
    """What is drawn."""

    skipped: bool = False
    interrupted: bool
    stopping_generation: bool = False
    job: str = ""
    job_count: int
    job_timestamp: str = "0"
    job_no: int = 0
    sampling_step: int
    sampling_steps: int


class ProgressRead(Response):
    """How far the caller's newest drawing is."""

    progress: float
    eta_relative: float
    state: StateRead
    current_image: str | None = Field(
        None, description="A PNG file in base64, an eighth of the image wide and high; null before the first."
    )
    textinfo: str | None = None


class PngInfoBody(Lenient):
    """An image."""

    image: _Image


class PngInfoRead(Response):
    """What the image carries."""

    info: str
    items: NothingRead = NothingRead()
    parameters: NothingRead = NothingRead()


class InterrogateBody(Lenient):
    """An image to name."""

    image: Annotated[str, Field(max_length=27_500_000, description="In base64, or a data URI.")]
    model: _Word | None = Field(None, description="Any name: the node asks its classifier and its CLIP model.")


class InterrogateRead(Response):
    """What an image shows."""

    caption: str = Field(description="One label.")


class EmbeddingEntry(Response):
    """A textual inversion."""

    step: int | None = None
    sd_checkpoint: str | None = None
    sd_checkpoint_name: str | None = None
    shape: int | None = None
    vectors: int | None


class EmbeddingsListRead(Response):
    """The textual inversions by their names."""

    loaded: dict[str, EmbeddingEntry]
    skipped: dict[str, EmbeddingEntry]


class WebUiError(Response):
    """The form of every error under `/sdapi/v1`."""

    error: str = Field(description="Stable word; `/docs/errors/{code}` explains it.")
    detail: str
    body: str
    errors: str
    request_id: str
