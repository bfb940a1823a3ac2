"""From a choice of model pack and device to a started engine that loads its models in the background."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import diffusers
import torch
import torchvision
import transformers

from app.engine.clip.runner import ClipPreparation, ClipRunner
from app.engine.engine import Engine
from app.engine.kernels.host_memory import exempt_from_collection, keep_freed_memory
from app.engine.resnet import BackboneRunner, ClassifierRunner
from app.engine.runner import Runner
from app.modelpacks.devices import (
    resolve_deterministic,
    resolve_device,
    resolve_dtype,
    resolve_num_threads,
    use_deterministic_kernels,
)
from app.modelpacks.loading import ClipComponents, load_backbone, load_classifier, load_clip
from app.modelpacks.pack import ModelPack, PackError, find_pack
from app.modelpacks.preprocessing import Preprocessing
from app.node.protocol import PACK_BACKBONE, BackboneFacts
from app.services.inference.backbone_descriptions import BackboneDescription, LoadedBackbone, NetworkFile
from app.services.inference.backbone_sources import (
    FolderSources,
    clip_input,
    pixel_input,
    runtime_facts,
    training_pictures_of,
)
from app.services.inference.backbones import Backbones
from app.services.inference.diffusion.adapters import Adapters
from app.services.inference.diffusion.choice import DiffusionChoice
from app.services.inference.diffusion.loading import DiffusionLoad
from app.services.inference.diffusion.models import LoadedModel, Models
from app.services.inference.fine_tuned import FineTunedSources
from app.services.inference.loaded import (
    BACKBONE,
    CLASSIFIER,
    CLIP,
    DIFFUSION,
    LoadedFacts,
    Runtime,
    resident_backbones,
)
from app.services.inference.modules import NodeModules
from app.services.inference.preprocessing import PreparationPool
from app.services.inference.service import Inference

logger = logging.getLogger(__name__)

# Images of one forward of CLIP or a ResNet. On a CPU an image in a batch of 8 costs within 5 % of one in a batch of 16.
# With 8, sixteen clients alternate in two batches, and one is prepared while the other runs. Without the limit every
# second batch had one image and ran while fifteen were prepared (decision 0019).
CPU_ONE_STEP_ROWS = 8
GPU_ONE_STEP_ROWS = 16


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which models to load, and onto what.

    Attributes:
        pack: `demo` or `sd15`.
        models_dir: Where fetched packs lie.
        overrides: Local folders instead of single parts of the pack, by part.
        device: `auto`, `cpu`, `cuda` or `cuda:n`.
        dtype: Number format of the diffusion model; `auto` is float16 on CUDA and float32 on the CPU.
        deterministic: Whether an image's bytes never depend on the rest of its batch; None: only on the CPU.
        gpu_graphs: Whether a GPU records the denoising forwards.
        gpu_compile: Whether a GPU's UNet and VAE are compiled.
        num_threads: CPU threads of a forward; None: see `resolve_num_threads`.
        max_queue_size: Engine requests that may wait, >= 1.
        backbones_bytes: Weights of the backbones that are loaded on demand, together.
        trained_dir: Where the models trained here lie; fine-tuned ones bring their own backbone.
        loras_dir: The folder of LoRAs and embeddings; None: there are none.
        loras_bytes: Fused weights of LoRAs, together.
        models: Folders and files of the diffusion models beside the pack's, by name.
        models_bytes: Weights of these in memory, together.
    """

    pack: str
    models_dir: Path
    overrides: Mapping[str, Path]
    device: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    deterministic: bool | None
    gpu_graphs: bool
    gpu_compile: bool
    num_threads: int | None
    max_queue_size: int
    backbones_bytes: int = 2_000_000_000
    trained_dir: Path | None = None
    loras_dir: Path | None = None
    loras_bytes: int = 4_000_000_000
    models: Mapping[str, Path] = field(default_factory=dict)
    models_bytes: int = 5_000_000_000


def start_inference(choice: ModelChoice) -> tuple[Engine, Inference]:
    """Start an engine on the chosen device; its models load in the background, and each may fail without the others.

    Raises:
        PackError: The device does not exist; there is no fall-back to the CPU.
    """
    device = resolve_device(choice.device)
    dtype = resolve_dtype(choice.dtype, device)
    if device.type == "cuda" and resolve_deterministic(choice.deterministic, device):
        use_deterministic_kernels()
    # The last bits of a result depend on the number of threads: it is fixed here and recorded with every image.
    torch.set_num_threads(resolve_num_threads(choice.num_threads))
    keep_freed_memory()
    pack = _find(choice)
    facts = LoadedFacts()
    engine = Engine(max_queue_size=choice.max_queue_size, on_loaded=exempt_from_collection)
    loads = _Loads(choice, pack, device, dtype, facts, engine)
    one_step_rows = CPU_ONE_STEP_ROWS if device.type == "cpu" else GPU_ONE_STEP_ROWS
    for name, load in ((CLASSIFIER, loads.classifier), (BACKBONE, loads.backbone), (CLIP, loads.clip)):
        engine.add_model(name, load, max_rows=one_step_rows)
    engine.add_model(DIFFUSION, loads.diffusion)
    engine.start()
    preparation = PreparationPool(max_queue_size=choice.max_queue_size)
    backbones = Backbones(
        engine,
        resident=resident_backbones(facts),
        sources=FolderSources(choice.models_dir, device),
        unlisted=FineTunedSources(choice.trained_dir, device),
        max_bytes=choice.backbones_bytes,
    )
    runtime = _runtime(choice, device, dtype)
    modules = NodeModules(lambda: pack or _found(choice), choice.models_dir, choice.trained_dir)
    adapters = Adapters(
        facts.find_adapters,
        max_bytes=choice.loras_bytes,
        max_waiting=choice.max_queue_size,
        has_folder=choice.loras_dir is not None,
    )
    inference = Inference(
        engine,
        pack,
        runtime,
        facts,
        preparation=preparation,
        backbones=backbones,
        modules=modules,
        adapters=adapters,
        models=make_models(choice, facts, adapters),
    )
    return engine, inference


def make_models(choice: ModelChoice, facts: LoadedFacts, adapters: Adapters | None) -> Models:
    """Return the diffusion models of requests; adapter sets of one that is evicted are dropped with it."""

    def forget_sets(model: LoadedModel) -> None:
        if adapters is not None and model.adapters is not None:
            adapters.forget(model.adapters)

    return Models(
        facts.find_models,
        facts.default_model,
        max_bytes=choice.models_bytes,
        max_waiting=choice.max_queue_size,
        on_drop=forget_sets,
    )


def _found(choice: ModelChoice) -> ModelPack:
    """Return the pack; raises PackError."""
    return find_pack(choice.pack, choice.models_dir, choice.overrides)


def _find(choice: ModelChoice) -> ModelPack | None:
    try:
        return _found(choice)
    except PackError:
        return None  # each model's load raises it again, so that /readyz has the reason


def _runtime(choice: ModelChoice, device: torch.device, dtype: torch.dtype) -> Runtime:
    libraries = {"torch": torch, "torchvision": torchvision, "diffusers": diffusers, "transformers": transformers}
    return Runtime(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        dtype=str(dtype).removeprefix("torch."),
        num_threads=torch.get_num_threads(),
        deterministic=resolve_deterministic(choice.deterministic, device),
        compiled=choice.gpu_compile and device.type == "cuda",
        versions={name: str(library.__version__) for name, library in libraries.items()},
    )


class _Loads:
    """Loads each model of the pack; called by the engine's loader thread."""

    def __init__(
        self,
        choice: ModelChoice,
        pack: ModelPack | None,
        device: torch.device,
        dtype: torch.dtype,
        facts: LoadedFacts,
        engine: Engine,
    ) -> None:
        self._choice = choice
        self._pack = pack
        self._device = device
        self._dtype = dtype
        self._facts = facts
        self._engine = engine

    def _found(self) -> ModelPack:
        return self._pack or _found(self._choice)

    def classifier(self) -> Runner:
        parts = load_classifier(self._found(), self._device)
        self._facts.classes = list(parts.classes)
        self._facts.classifier_pixels = parts.preprocess
        return ClassifierRunner(model=parts.model, device=self._device)

    def backbone(self) -> Runner:
        pack = self._found()
        parts = load_backbone(pack, self._device)
        part = "backbone" if pack.part("backbone").is_dir() else "classifier"
        facts = BackboneFacts(
            architecture=parts.architecture,
            weights_sha256=parts.weights_sha256,
            preprocessing=parts.preprocessing.to_json(),
            name=PACK_BACKBONE,
            **runtime_facts(self._device),
        )
        description = self._describe(facts, pack, part, parts.preprocessing.crop, parts.num_features, parts.model)
        network = NetworkFile("torchvision", parts.architecture, {}, pack.part(part) / "model.safetensors")
        self._facts.backbone = LoadedBackbone(
            BACKBONE,
            replace(description, network=network),
            pixel_input(parts.preprocess, parts.preprocessing),
        )
        return BackboneRunner(model=parts.model, device=self._device)

    def _describe(
        self, facts: BackboneFacts, pack: ModelPack, part: str, side: int, num_features: int, model: torch.nn.Module
    ) -> BackboneDescription:
        weights = pack.part(part) / "model.safetensors"
        return BackboneDescription(
            facts=facts,
            input_side=side,
            num_features=num_features,
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
            num_bytes=weights.stat().st_size if weights.is_file() else None,
            trained_on=training_pictures_of(pack.name, is_override=part in pack.overrides),
        )

    def clip(self) -> Runner:
        parts = load_clip(self._found(), self._device)
        max_tokens = parts.model.config.text_config.max_position_embeddings
        prepare = self._facts.prepare_clip = ClipPreparation(parts.processor, max_tokens=max_tokens)
        self._facts.prepare_texts = prepare.texts
        self._facts.clip_backbone = self._clip_backbone(parts, prepare)
        return ClipRunner(model=parts.model, device=self._device)

    def _clip_backbone(self, parts: ClipComponents, prepare: ClipPreparation) -> LoadedBackbone | None:
        """Return CLIP's image tower as a backbone; None where its processor does other things than CLIP's."""
        pack = self._found()
        try:
            preprocessing = Preprocessing.from_processor(parts.processor.image_processor)
        except (AttributeError, KeyError, TypeError, ValueError):
            logger.warning("The CLIP model cannot be a backbone: its processor is of another kind.", exc_info=True)
            return None
        facts = BackboneFacts(
            architecture="clip",
            weights_sha256=parts.weights_sha256,
            preprocessing=preprocessing.to_json(),
            name=CLIP,
            **runtime_facts(self._device),
        )
        model = parts.model.vision_model
        num_features = int(parts.model.config.projection_dim)
        description = self._describe(facts, pack, "clip", preprocessing.crop, num_features, model)
        return LoadedBackbone(CLIP, description, clip_input(prepare, preprocessing))

    def diffusion(self) -> Runner:
        choice = self._choice
        diffusion = DiffusionChoice(
            device=self._device,
            dtype=self._dtype,
            runtime=_runtime(choice, self._device, self._dtype),
            models_dir=choice.models_dir,
            loras_dir=choice.loras_dir,
            deterministic=resolve_deterministic(choice.deterministic, self._device),
            gpu_graphs=choice.gpu_graphs,
            gpu_compile=choice.gpu_compile,
            models=choice.models,
            models_bytes=choice.models_bytes,
        )
        return DiffusionLoad(diffusion, self._facts, self._engine)(self._found())
