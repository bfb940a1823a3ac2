"""Models without weights: deterministic runners for the real engine."""

import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image as Picture
from torchvision.transforms.functional import to_pil_image, to_tensor

from app.engine.clip.runner import ClipPayload, ClipScores, ClipTexts, ClipTextsPayload
from app.engine.clip.texts import TokenIds
from app.engine.diffusion.encoder import ImageToImage
from app.engine.diffusion.previews import LatentColours, PreviewTap
from app.engine.diffusion.runner import GeneratedImage, spec_of
from app.engine.engine import Engine
from app.engine.request import EngineRequest
from app.engine.resnet import Classification, ClassifyPayload, FeaturePayload
from app.engine.runner import Runner
from app.errors import InferenceFailed
from app.modelpacks.adapters import AdapterFolder
from app.modelpacks.listing import ListedModel
from app.modelpacks.pack import ModelPack, demo_pack_folder
from app.modelpacks.preprocessing import Preprocessing
from app.node.protocol import BackboneFacts
from app.services.inference.backbone_descriptions import (
    BackboneDescription,
    BackboneInput,
    BackboneSource,
    LoadedBackbone,
    TrainedOn,
)
from app.services.inference.backbone_sources import TimmBackbone
from app.services.inference.backbones import Backbones
from app.services.inference.diffusion.adapters import Adapters
from app.services.inference.diffusion.models import LoadedModel
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
from app.services.inference.loading import ModelChoice, make_models
from app.services.inference.service import Inference
from testing.fake_modules import FakeModules
from testing.waiting import PATIENCE_S

CLASSES = ["fox", "dog", "cat"]
NUM_FEATURES = 512
BROKEN_PROMPT = "a prompt that breaks the model"
FLAGGED_PROMPT = "a prompt that the checker flags"
QUOTED = "quoted by an error"  # in a prompt, which the model's error then repeats


class _OneStep:
    """Is finished after one step; a subclass defines `finish`.

    Attributes:
        callers: Of the requests so far, in order.
    """

    def __init__(self) -> None:
        self.callers: list[str] = []

    def prepare(self, request: EngineRequest) -> None:
        self.callers.append(request.caller)
        request.state = 0

    def step(self, requests: Sequence[EngineRequest]) -> None:
        for request in requests:
            request.state += 1

    def is_finished(self, request: EngineRequest) -> bool:
        return True


class FakeDiffusion:
    """Renders one colour, determined by prompt and seed: red for fox prompts, blue for others.

    An initial image is mixed in by the strength, and stays outside of a mask.

    Attributes:
        num_steps: Steps taken so far, of all images.
        gate: Steps wait while it is cleared.
        running: The requests of the current step, or of the last one.
        stepping: Set once a step has begun.
        callers: Of the images so far, in order.
    """

    def __init__(self) -> None:
        self.num_steps = 0
        self.gate = threading.Event()
        self.gate.set()
        self.running: Sequence[EngineRequest] = ()
        self.stepping = threading.Event()
        self.callers: list[str] = []

    def prepare(self, request: EngineRequest) -> None:
        self.callers.append(request.caller)
        request.state = 0

    def step(self, requests: Sequence[EngineRequest]) -> None:
        self.num_steps += len(requests)
        self.running = requests
        self.stepping.set()
        self.gate.wait(PATIENCE_S)
        for request in requests:
            spec = spec_of(request.payload)
            if isinstance(request.on_step, PreviewTap) and request.on_step.is_due(request.state + 1):
                request.on_step.x0 = torch.full((3, spec.height // 8, spec.width // 8), 0.5)
            prompt = spec.prompt
            if prompt == BROKEN_PROMPT:
                raise InferenceFailed
            if QUOTED in prompt:
                raise ValueError(prompt)
            request.state += 1

    def is_finished(self, request: EngineRequest) -> bool:
        return bool(request.state >= min(spec_of(request.payload).num_inference_steps, request.cost.steps))

    def finish(self, request: EngineRequest) -> GeneratedImage:
        payload = spec_of(request.payload)
        rng = np.random.default_rng(zlib.crc32(f"{payload.prompt} {payload.seed}".encode()))
        pixels = rng.integers(0, 60, (payload.height, payload.width, 3), dtype=np.uint8)
        pixels[..., 0 if "fox" in payload.prompt else 2] += 180
        if isinstance(request.payload, ImageToImage):
            pixels = _mixed(pixels, request.payload)
        words = payload.prompt.split()
        return GeneratedImage(
            pixels=pixels,
            flagged=payload.prompt == FLAGGED_PROMPT,
            prompt_cut=" ".join(words[75:]) or None,
            negative_prompt_cut=None,
            queued_ms=1.0,
            denoising_ms=2.0,
            decoding_ms=3.0,
        )


def _mixed(painted: np.ndarray, payload: ImageToImage) -> np.ndarray:
    """Mix a painted picture into the initial one, by strength and mask."""
    strength = payload.spec.strength or 0.0
    parts = np.full(payload.pixels.shape[:2], strength) if payload.mask is None else strength * payload.mask / 255
    weights = parts[..., None]
    mixed: np.ndarray = (weights * painted + (1 - weights) * payload.pixels).round().astype(np.uint8)
    return mixed


class FakeClip(_OneStep):
    """Scores a label by its length only.

    Attributes:
        score: Returns the logit of a text on a picture; tests may replace it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.score: Callable[[Picture, str], float] = lambda _image, text: float(len(text))

    def finish(self, request: EngineRequest) -> ClipScores | ClipTexts:
        payload = request.payload
        if isinstance(payload, ClipTextsPayload):
            return ClipTexts(np.stack([_direction(text) for text in payload.texts]), logit_scale=100.0)
        assert isinstance(payload, ClipPayload)
        picture, texts = to_pil_image(payload.pixels), [bytes(text).decode() for text in payload.texts]
        logits = np.array([self.score(picture, text) for text in texts])
        probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        return ClipScores(
            probabilities=tuple(probabilities.tolist()),
            logits=tuple(logits.tolist()),
            cosines=tuple((logits / 1_000).tolist()),
            image_embed=np.ones(4, dtype=np.float32) / 2,
        )


def _direction(text: TokenIds) -> np.ndarray:
    """Return an embedding of length 1 that the text determines."""
    direction = np.random.default_rng(zlib.crc32(bytes(text))).normal(size=4).astype(np.float32)
    embedding: np.ndarray = direction / np.linalg.norm(direction)
    return embedding


class FakeClassifier(_OneStep):
    """Classifies red pictures as foxes, others as dogs."""

    def finish(self, request: EngineRequest) -> Classification:
        assert isinstance(request.payload, ClassifyPayload)
        red, _, blue = request.payload.pixels.mean(dim=(1, 2)).tolist()
        best = [0.7, 0.2, 0.1] if red > blue else [0.2, 0.7, 0.1]
        return Classification(np.array(best, dtype=np.float32))


class FakeBackbone(_OneStep):
    """Mean colour, spread over the features; its own head classifies as `FakeClassifier` does."""

    def finish(self, request: EngineRequest) -> np.ndarray | Classification:
        if isinstance(request.payload, ClassifyPayload):
            return FakeClassifier().finish(request)
        assert isinstance(request.payload, FeaturePayload)
        means = request.payload.pixels.mean(dim=(1, 2)).numpy()
        return np.resize(means, NUM_FEATURES).astype(np.float32)


PREPROCESSING = Preprocessing(64, 64, (0.5,) * 3, (0.5,) * 3)
MEAN_COLOUR = BackboneInput(to_tensor, PREPROCESSING.crop_view, FeaturePayload, lambda features: features)
CLIP_INPUT = BackboneInput(
    to_tensor,
    PREPROCESSING.crop_view,
    lambda pixels: ClipPayload(pixels, ((0,),)),
    lambda scores: scores.image_embed,
)


def describe(
    name: str, *, trained_on: TrainedOn | None = None, sha256: str = "f" * 64, **more: Any
) -> BackboneDescription:
    facts = BackboneFacts(name, sha256, PREPROCESSING.to_json(), name=name)
    sizes: dict[str, Any] = {"num_features": NUM_FEATURES, "num_parameters": 1, "num_bytes": 1_000_000}
    return BackboneDescription(facts, input_side=64, trained_on=trained_on, **{**sizes, **more})


class FakeSource:
    """A backbone that is loaded on demand.

    Attributes:
        description: What `describe` returns; tests may replace it.
        num_loads: Calls of `load` so far.
        gate: `load` waits while it is cleared.
        fault: Raised by `load` where it is set.
    """

    def __init__(self, description: BackboneDescription) -> None:
        self.description = description
        self.num_loads = 0
        self.gate = threading.Event()
        self.gate.set()
        self.fault: Exception | None = None

    def describe(self) -> BackboneDescription:
        return self.description

    def load(self) -> tuple[Runner, BackboneInput]:
        self.num_loads += 1
        self.gate.wait(PATIENCE_S)
        if self.fault is not None:
            raise self.fault
        return FakeBackbone(), MEAN_COLOUR


def _prepare_clip(image: Picture, texts: Sequence[str]) -> ClipPayload:
    """Use the bytes of the texts as tokens."""
    return ClipPayload(to_tensor(image), tuple(tuple(text.encode()) for text in texts))


def _prepare_texts(texts: Sequence[str]) -> ClipTextsPayload:
    return ClipTextsPayload(tuple(tuple(text.encode()) for text in texts))


RUNTIME = Runtime(
    device="cpu", dtype="float32", num_threads=1, deterministic=True, compiled=False, versions={"torch": "fake"}
)


class NoFurtherModels:
    """No diffusion models beside the default one."""

    listed: Mapping[str, ListedModel] = {}

    def folder(self, name: str) -> AdapterFolder | None:
        raise NotImplementedError(name)

    def revision(self, name: str) -> str:
        raise NotImplementedError(name)

    def load(self, name: str) -> LoadedModel:
        raise NotImplementedError(name)

    def drop(self, name: str) -> None:
        raise NotImplementedError(name)


class FakeModels:
    """Replaces the real models in `create_app`; keeps runners and engine, so that tests can inspect them."""

    engine: Engine

    def __init__(self, clip: Callable[[], Runner] = FakeClip) -> None:
        self.diffusion = FakeDiffusion()
        self.backbones: dict[str, BackboneSource] = {}  # loaded on demand; tests add some
        self.clip: Any = clip()  # a Runner; tests set the `score` of a FakeClip
        self.backbone = describe("resnet18", trained_on="drawings")
        self.modules: Any = FakeModules(NUM_FEATURES, CLASSES, PREPROCESSING)  # PlainModules; tests may replace it
        self.pack = ModelPack(
            name="demo",
            revision="fake",
            licence="Apache-2.0",
            folder=demo_pack_folder(),
            native_size=64,
            min_side=64,
            max_side=192,
            default_noise_scheduler="pndm",
        )

    def start(self, choice: ModelChoice) -> tuple[Engine, Inference]:
        engine = Engine(max_queue_size=choice.max_queue_size)
        engine.add_model(CLASSIFIER, FakeClassifier, max_rows=16)
        engine.add_model(BACKBONE, FakeBackbone, max_rows=16)
        engine.add_model(CLIP, lambda: self.clip, max_rows=16)
        engine.add_model(DIFFUSION, lambda: self.load_diffusion(choice, facts, engine))
        self.engine = engine
        facts = LoadedFacts(
            classes=CLASSES,
            backbone=LoadedBackbone(BACKBONE, self.backbone, MEAN_COLOUR),
            clip_backbone=LoadedBackbone(CLIP, describe("clip", trained_on="drawings"), CLIP_INPUT),
            prepare_clip=_prepare_clip,
            prepare_texts=_prepare_texts,
            classifier_pixels=to_tensor,
            preview_colours=LatentColours(np.eye(3, dtype=np.float32), np.zeros(3, np.float32)),
        )
        engine.start()
        backbones = Backbones(
            engine,
            resident=resident_backbones(facts),
            sources=lambda: self.backbones,
            unlisted=FineTunedSources(choice.trained_dir, torch.device("cpu")),
            max_bytes=choice.backbones_bytes,
        )
        adapters = Adapters(facts.find_adapters, max_bytes=choice.loras_bytes) if choice.loras_dir else None
        if not choice.models:
            facts.models = NoFurtherModels()
        models = make_models(choice, facts, adapters)
        inference = Inference(
            engine,
            self.pack,
            RUNTIME,
            facts,
            backbones=backbones,
            modules=self.modules,
            adapters=adapters,
            models=models,
        )
        return engine, inference

    def load_diffusion(self, choice: ModelChoice, facts: LoadedFacts, engine: Engine) -> Runner:
        """Return the diffusion model; on the loader thread."""
        return self.diffusion


def add_backbone(models: FakeModels, folder: Path) -> None:
    """Give a node a genuine network of timm as the backbone `tiny`."""
    models.backbones["tiny"] = TimmBackbone("tiny", folder, torch.device("cpu"))
