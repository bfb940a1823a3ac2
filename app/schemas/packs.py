"""Response models of the served model pack: origin of its weights, and measurements of them. Imports no services; pure.

The manifest of a pack is written by the pack's build; what it does not say, and what has no field here, is left out.
`make demo-pack-report` measures the demo pack.
"""

from pydantic import Field

from app.schemas.common import Recorded, Response


class BuildStage(Recorded):
    """The training of one part of a pack."""

    steps: int | None = None
    minutes: float | None = None


class PackOrigin(Recorded):
    """How a pack's weights were made; without what its manifest does not say."""

    how: str | None = None
    command: str | None = None
    seeds: dict[str, int] | None = None
    stages: dict[str, BuildStage] | None = None


class PackSpeed(Recorded):
    """How fast a pack is on the machine that measured it."""

    seconds_per_image_50_steps: float | None = None
    load_seconds: float | None = None


class ClassAccuracy(Recorded):
    """How many generated images of a class the pack's own judges recognise, as shares."""

    clip_class: float | None = None
    clip_colour: float | None = None
    classifier_top1: float | None = None
    classifier_top5: float | None = None


class GeneratedQuality(Recorded):
    """What the pack's own judges make of its generated images."""

    images: int | None = None
    clip_class_accuracy: float | None = None
    clip_colour_accuracy: float | None = None
    classifier_top1: float | None = None
    classifier_top5: float | None = None
    per_class: dict[str, ClassAccuracy] | None = None


class HeldOutQuality(Recorded):
    """What the pack's models make of held-out pictures."""

    drawings: int | None = None
    caption_recall_at_1_of_100: dict[str, float] | None = None
    clip_class_accuracy: float | None = None
    clip_colour_accuracy: float | None = None
    classifier_top1: float | None = None
    vae_psnr_db: dict[str, float] | None = Field(None, description="PSNR of the autoencoder by style, in dB.")


class JudgeQuality(Recorded):
    """How many generated images an independent classifier recognises, as shares."""

    architecture: str | None = None
    held_out_drawings: float | None = None
    generated: float | None = None
    per_class: dict[str, float] | None = None


class ProbeQuality(Recorded):
    """The accuracy of a classifier that was trained on generated images of some classes."""

    fresh_pictures: float | None = None
    drawings: float | None = None
    trained_on_a_class: int | None = Field(None, description="Images of each class that it was trained on.")


class NegativePromptEffect(Recorded):
    """What a negative prompt changes: CLIP's probability of what it names."""

    prompt: str | None = None
    negative_prompt: str | None = None
    without: float | None = None
    with_: float | None = Field(None, alias="with")
    change: float | None = None


class SettingQuality(Recorded):
    """CLIP's accuracy on generated images, by setting."""

    clip_class_accuracy: dict[str, float] | None = None


class PackQuality(Recorded):
    """Measurements of a pack's weights; without those that its manifest does not have."""

    speed: PackSpeed | None = None
    generated: GeneratedQuality | None = None
    held_out_drawings: HeldOutQuality | None = None
    judge: JudgeQuality | None = None
    probes: dict[str, ProbeQuality] | None = Field(None, description="By the classes, between slashes.")
    noise_schedulers: SettingQuality | None = Field(None, description="By noise scheduler and number of steps.")
    negative_prompts: dict[str, NegativePromptEffect] | None = None
    sizes: SettingQuality | None = Field(None, description="By width and height.")


class PackRead(Response):
    """The served model pack."""

    name: str
    revision: str
    licence: str
    native_size: int = Field(description="Width and height that the diffusion model was trained for.")
    classifier_classes: list[str]
    total_bytes: int
    files: int
    quality: PackQuality
    made: PackOrigin
