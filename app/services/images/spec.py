"""From a request's settings to what is drawn: the loaded model's defaults, and what this node refuses.

Imports no engine, no files and no database. Pure functions; any thread may call them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.error_codes import ErrorCode
from app.errors import FieldError, ModelNotReady
from app.image_spec import FewStepSettings, ImageSpec
from app.schemas.generations import GenerateRequest, GenerationSettings, ImageSettings
from app.schemas.source_images import DEFAULT_STRENGTH
from app.services.limits import Limits
from app.step_rows import SPACED_SCHEDULERS, TIMESTEP_SCHEDULERS, Speed

# Names of a folder, or of models, that a message lists.
MAX_NAMED = 20


@dataclass(frozen=True, slots=True)
class SizeRules:
    """The sizes that the loaded diffusion model draws, in pixels, its own noise scheduler, and what else it has.

    Attributes:
        loras: Why each LoRA cannot be used, by name; None: it can. All None: the folder is not read yet.
        embeddings: The same for textual-inversion embeddings.
        name: The model's name, which requests may give for the default one.
        models: The same of the models beside the default one, by name, or why one cannot be used, in sentences. None:
            they are not listed yet.
        few_step: What `speed: fast` was trained for; None: the model does not have it.
        needs_mask: Whether the model repaints parts of pictures and draws nothing else.
    """

    native: int
    min_side: int
    max_side: int
    default_scheduler: str
    loras: Mapping[str, str | None] | None = field(default_factory=dict)
    embeddings: Mapping[str, str | None] | None = field(default_factory=dict)
    name: str = ""
    models: "Mapping[str, SizeRules | str] | None" = field(default_factory=dict)
    few_step: FewStepSettings | None = None
    needs_mask: bool = False

    @property
    def speeds(self) -> tuple[Speed, ...]:
        """The speeds that the model has."""
        return ("exact", "balanced") if self.few_step is None else ("exact", "balanced", "fast")

    def of(self, model: str | None) -> "SizeRules":
        """Return the rules of a model; of one that is not there, the default one's."""
        found = None if model is None or self.models is None else self.models.get(model)
        return found if isinstance(found, SizeRules) else self


def model_fault(name: str, faults: Mapping[str, str | None]) -> str | None:
    """Return why a model beside the default one cannot be used, in sentences; None if it can.

    Args:
        name: As a request has it.
        faults: Why each of them cannot be used, by name; None: it can.
    """
    if name not in faults:
        usable = [each for each, fault in faults.items() if fault is None]
        named = ", ".join(sorted(usable)[:MAX_NAMED]) or "none beside its default one"
        return f"The node has no model of this name. It has {named}."
    fault = faults[name]
    return None if fault is None else f"This model cannot be used. {fault}"


def resolve_settings(settings: ImageSettings, sizes: SizeRules) -> dict[str, Any]:
    """Return the settings by name, with the loaded model's own values where none were given; a range stays one.

    With `speed: fast` steps, guidance, scheduler and spacing that were not given are those of the few-step weights.
    """
    values = settings.model_dump(include=set(GenerationSettings.model_fields))
    if values["model"] in (None, sizes.name):
        del values["model"]  # what is recorded of it is what releases before it know
    sizes = sizes.of(values.get("model"))
    if values["speed"] == "fast" and sizes.few_step is not None:
        values |= _few_step_defaults(settings, values, sizes.few_step)
    values["width"] = values["width"] or sizes.native
    values["height"] = values["height"] or sizes.native
    values["scheduler"] = values["scheduler"] or sizes.default_scheduler
    return values


def _few_step_defaults(settings: ImageSettings, values: Mapping[str, Any], few_step: FewStepSettings) -> dict[str, Any]:
    """Return the settings of the few-step weights for what was not given, or is null."""
    own: dict[str, Any] = {"scheduler": few_step.scheduler, "timestep_spacing": few_step.timestep_spacing}
    own |= {"num_inference_steps": few_step.num_inference_steps, "guidance_scale": few_step.guidance_scale}
    given = {name for name in settings.model_fields_set if values.get(name) is not None}
    scheduler = values["scheduler"] or few_step.scheduler
    if values.get("timesteps") is not None or scheduler not in SPACED_SCHEDULERS:
        given.add("timestep_spacing")
    return {name: value for name, value in own.items() if name not in given}


def resolve_spec(request: GenerateRequest, sizes: SizeRules, *, seed: int) -> ImageSpec:
    """Return what the request's first image is drawn from; without its pictures, see `app.services.images.sources`.

    Args:
        request: As it came.
        sizes: The loaded model's.
        seed: The first image's; the request may have none.
    """
    settings = resolve_settings(request, sizes)
    if request.init_image is not None:
        settings["strength"] = DEFAULT_STRENGTH if request.strength is None else request.strength
    if request.mask is not None:
        settings |= {"mask_blur": request.mask_blur, "mask_invert": request.mask_invert}
    return ImageSpec(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=seed,
        prompt_syntax=request.prompt_syntax,
        clip_skip=request.clip_skip,
        **settings,
    )


def settings_faults(values: dict[str, Any], sizes: SizeRules, limits: Limits, *, base: str = "#") -> list[FieldError]:
    """Return what this node refuses in resolved settings.

    Args:
        values: As `resolve_settings` or `ImageSpec.to_json` gives them.
        sizes: The loaded models' sizes.
        limits: The node's bounds.
        base: JSON Pointer of the object that held the settings.
    """
    if faults := _model_faults(values.get("model"), sizes, base):
        return faults  # what the others depend on
    sizes, faults = sizes.of(values.get("model")), []
    for side in ("width", "height"):
        if not sizes.min_side <= values[side] <= sizes.max_side:
            detail = f"The side must be between {sizes.min_side} and {sizes.max_side} pixels for {_named(values)}."
            faults.append(FieldError(f"{base}/{side}", detail, ErrorCode.SIZE_NOT_SUPPORTED))
    if _largest(values["num_inference_steps"]) > limits.num_inference_steps:
        detail = f"This must be at most {limits.num_inference_steps} on this node."
        faults.append(FieldError(f"{base}/num_inference_steps", detail, ErrorCode.TOO_MANY_STEPS))
    faults += _schedule_faults(values, sizes, base) + _few_step_faults(values, sizes.few_step, base)
    return faults + _adapter_faults(values, sizes, base)


def _few_step_faults(values: dict[str, Any], few_step: FewStepSettings | None, base: str) -> list[FieldError]:
    """Return what few-step weights cannot do: many steps, and guidance beside their own."""
    if few_step is None or values.get("speed") != "fast":
        return []
    faults, most = [], few_step.max_num_inference_steps
    if _largest(values["num_inference_steps"]) > most:
        detail = f"Speed fast takes at most {most} steps. Leave this out for {few_step.num_inference_steps}."
        faults.append(FieldError(f"{base}/num_inference_steps", detail, ErrorCode.TOO_MANY_STEPS))
    if _largest(values["guidance_scale"]) > 1:
        detail = "Speed fast has its guidance inside. Leave this out, or give 1."
        faults.append(FieldError(f"{base}/guidance_scale", detail, ErrorCode.GUIDANCE_NOT_SUPPORTED))
    return faults


def _largest(setting: Any) -> float:
    """Return a number, or the largest of a range."""
    return float(setting["max"] if isinstance(setting, dict) else setting)


def _named(values: Mapping[str, Any]) -> str:
    return f"the model {values['model']}" if values.get("model") else "the loaded model"


def _model_faults(model: str | None, sizes: SizeRules, base: str) -> list[FieldError]:
    """Return what is wrong with the name of a model.

    Raises:
        ModelNotReady: One is named, and the models are not listed yet.
    """
    if model is None:
        return []
    if sizes.models is None:
        raise ModelNotReady("The model is still loading.", retry_after_s=5)
    faults = {name: rules if isinstance(rules, str) else None for name, rules in sizes.models.items()}
    known = {**({sizes.name: None} if sizes.name else {}), **faults}
    detail = model_fault(model, known)
    return [] if detail is None else [FieldError(f"{base}/model", detail, ErrorCode.MODEL_NOT_FOUND)]


def _schedule_faults(values: dict[str, Any], sizes: SizeRules, base: str) -> list[FieldError]:
    """Return what the loaded model or the noise scheduler does not have of speeds and timesteps."""
    faults = []
    if (speed := values.get("speed", "exact")) not in sizes.speeds:
        detail = f"The loaded model has no speed {speed}. It has {', '.join(sizes.speeds)}."
        faults.append(FieldError(f"{base}/speed", detail, ErrorCode.SPEED_NOT_OFFERED))
    supporting = {"timestep_spacing": SPACED_SCHEDULERS, "timesteps": TIMESTEP_SCHEDULERS}
    for name, schedulers in supporting.items():
        if values.get(name) is not None and values["scheduler"] not in schedulers:
            detail = f"{values['scheduler']} has its own timesteps. Leave this out, or take another scheduler."
            faults.append(FieldError(f"{base}/{name}", detail, ErrorCode.TIMESTEPS_NOT_SUPPORTED))
    return faults


def _adapter_faults(values: dict[str, Any], sizes: SizeRules, base: str) -> list[FieldError]:
    """Return what there is not, or cannot be used, of the LoRAs and embeddings that are named.

    Raises:
        ModelNotReady: Some are named, and the folder is not read yet.
    """
    loras = {f"{base}/loras/{index}/name": use["name"] for index, use in enumerate(values.get("loras") or ())}
    embeddings = {f"{base}/embeddings/{index}": name for index, name in enumerate(values.get("embeddings") or ())}
    faults = _name_faults("LoRA", loras, sizes.loras)
    faults += _name_faults("embedding", embeddings, sizes.embeddings)
    for name, named in (("loras", loras), ("embeddings", embeddings)):
        if len(set(named.values())) < len(named):
            faults.append(FieldError(f"{base}/{name}", "A name stands here twice.", ErrorCode.DUPLICATE_ADAPTERS))
    return faults


def _name_faults(kind: str, named: Mapping[str, str], known: Mapping[str, str | None] | None) -> list[FieldError]:
    """Return the faults of names by their pointers."""
    if not named:
        return []
    if known is None:
        raise ModelNotReady("The model is still loading.", retry_after_s=5)
    usable = ", ".join(sorted(name for name, fault in known.items() if fault is None)[:MAX_NAMED]) or "none"
    code = ErrorCode.LORA_NOT_FOUND if kind == "LoRA" else ErrorCode.EMBEDDING_NOT_FOUND
    faults = []
    for pointer, name in named.items():
        if name not in known:
            faults.append(FieldError(pointer, f"The node has no {kind} of this name. It has {usable}.", code=code))
        elif (fault := known[name]) is not None:
            faults.append(FieldError(pointer, f"This {kind} cannot be used. {fault}", code=code))
    return faults


def mask_faults(model: str | None, sizes: SizeRules, pointer: str) -> list[FieldError]:
    """Return what is wrong with an image without a mask: some models draw none."""
    if not sizes.of(model).needs_mask:
        return []
    detail = "This model repaints parts of pictures. Give /generate init_image and mask, or name another model."
    return [FieldError(pointer, detail, ErrorCode.MASK_MISSING)]


def spec_faults(
    spec: ImageSpec, num_images: int, sizes: SizeRules, limits: Limits, *, is_masked: bool = False
) -> list[FieldError]:
    """Return what this node refuses in a request for images of this spec that differ in their seeds alone.

    Args:
        spec: The first image's.
        num_images: Images of the request, >= 1.
        sizes: The loaded model's sizes.
        limits: The node's bounds.
        is_masked: Whether the request has a mask.
    """
    faults = settings_faults(spec.to_json(), sizes, limits)
    faults += [] if is_masked else mask_faults(spec.model, sizes, "#/mask")
    if spec.first_step == spec.num_inference_steps:
        detail = f"{spec.num_inference_steps} steps x strength is less than one step. Raise one of the two."
        return [*faults, FieldError("#/strength", detail, ErrorCode.STRENGTH_TOO_LOW)]
    work = num_images * spec.pixel_steps
    if work > limits.work_pixel_steps:
        detail = (
            f"Images x steps x width x height is {work}, where a step without guidance counts half. "
            f"It must be at most {limits.work_pixel_steps}."
        )
        faults.append(FieldError("#", detail, ErrorCode.WORK_TOO_LARGE))
    texts = (("#/prompt", spec.prompt), ("#/negative_prompt", spec.negative_prompt))
    return faults + prompt_length_faults([(pointer, len(text)) for pointer, text in texts], limits)


def prompt_length_faults(lengths: Sequence[tuple[str, int]], limits: Limits) -> list[FieldError]:
    """Return a fault for each (pointer, characters of a prompt) above the node's bound."""
    detail = f"This must have at most {limits.prompt_chars} characters on this node."
    return [
        FieldError(pointer, detail, ErrorCode.PROMPT_TOO_LONG)
        for pointer, length in lengths
        if length > limits.prompt_chars
    ]
