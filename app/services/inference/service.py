"""The models of this node as the other services use them: specs and images in memory in, images and numbers out.

Imports neither HTTP nor SQL. Runs on the API process's event loop; every call awaits the engine's device thread, so
none is made inside a transaction.
"""

import asyncio
import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from PIL import Image

from app.engine.clip.runner import ClipPayload, ClipScores, ClipTexts, ClipTextsPayload
from app.engine.diffusion.runner import GeneratedImage, cost_of
from app.engine.engine import ONE_ROW, Engine
from app.engine.loader import ModelStatus
from app.engine.request import Priority, RequestCost
from app.engine.resnet import Classification, ClassifyPayload
from app.errors import ModelNotReady
from app.image_spec import ImageInfo, ImageSpec, OutputFormat, RenderedImage
from app.modelpacks.pack import ModelPack
from app.node.protocol import PACK_BACKBONE
from app.schemas.common import MAX_LABELS
from app.services.images.spec import SizeRules
from app.services.inference.backbone_descriptions import LoadedBackbone
from app.services.inference.backbones import Backbones, Resident
from app.services.inference.features import Features, LoadImage
from app.services.inference.modules import NodeModules, PlainModules
from app.services.inference.preprocessing import PreparationPool
from app.storage.images import encode_image

DIFFUSION, CLIP, CLASSIFIER, BACKBONE = "diffusion", "clip", "classifier", "backbone"

T = TypeVar("T")

Preprocess = Callable[[Image.Image], torch.Tensor]

# Texts of one request to CLIP, labels and a prompt: more would occupy the device for too long.
TEXTS_AT_ONCE = MAX_LABELS + 1


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the pixels depend on besides the request: recorded with every image."""

    device: str
    dtype: str
    num_threads: int
    deterministic: bool
    compiled: bool
    versions: dict[str, str]


@dataclass(slots=True)
class LoadedFacts:
    """Facts of loaded models; written by the engine's loader thread, read by any thread.

    Attributes:
        prepare_clip: From picture and texts to CLIP's input; like the next one called by several threads at once.
        classifier_pixels: From a picture to (3, H, W), float32, normalised for the classifier's weights.
        backbone: The pack's backbone.
        clip_backbone: CLIP's image tower as a backbone.
    """

    classes: list[str] | None = None
    backbone: LoadedBackbone | None = None
    clip_backbone: LoadedBackbone | None = None
    prepare_clip: Callable[[Image.Image, Sequence[str]], ClipPayload] | None = None
    prepare_texts: Callable[[Sequence[str]], ClipTextsPayload] | None = None
    classifier_pixels: Preprocess | None = None

    def find_backbone(self) -> LoadedBackbone:
        """Return the pack's backbone; raises ModelNotReady until it is loaded."""
        return _loaded(self.backbone)

    def find_clip_backbone(self) -> LoadedBackbone:
        """Return CLIP's image tower; raises ModelNotReady until it is loaded."""
        return _loaded(self.clip_backbone)


class Inference:
    """Rendering, scoring and classifying on the node's engine.

    An `owner` stands for one request: the pictures of several owners are prepared in turn.
    """

    def __init__(
        self,
        engine: Engine,
        pack: ModelPack | None,
        runtime: Runtime,
        facts: LoadedFacts,
        *,
        preparation: PreparationPool | None = None,
        backbones: Backbones | None = None,
        modules: PlainModules | None = None,
    ) -> None:
        """Use a started engine.

        Args:
            engine: Has the models `diffusion`, `clip`, `classifier` and `backbone`.
            pack: The pack they come from; None if it could not be found, then every model is failed.
            runtime: Where they run.
            facts: Filled while the models load.
            preparation: The pool that prepares pictures; closed by `close`. Default: a new one.
            backbones: All backbones of the node; closed by `close`. Default: the pack's alone.
            modules: The same backbones as plain modules. Default: the pack's alone.
        """
        self._engine = engine
        self._pack = pack
        self._facts = facts
        self._preparation = preparation or PreparationPool()
        self.runtime = runtime
        self.backbones = backbones or Backbones(engine, resident=resident_backbones(facts))
        self.modules = modules or NodeModules(lambda: self.pack, Path())
        self.features = Features(engine, self._preparation, self.backbones)

    @property
    def pack(self) -> ModelPack:
        """The loaded pack.

        Raises:
            ModelNotReady: There is none.
        """
        if self._pack is None:
            raise ModelNotReady("The model pack could not be found. /readyz has the reason.", retry_after_s=30)
        return self._pack

    @property
    def sizes(self) -> SizeRules:
        """The sizes that the pack's diffusion model draws."""
        pack = self.pack
        return SizeRules(pack.native_size, pack.min_side, pack.max_side, pack.default_noise_scheduler)

    @property
    def classes(self) -> list[str]:
        """The pretrained classifier's labels by index.

        Raises:
            ModelNotReady: It is not loaded.
        """
        if self._facts.classes is None:
            raise ModelNotReady("The classifier is not loaded. /readyz has the reason.", retry_after_s=5)
        return self._facts.classes

    def status(self) -> dict[str, ModelStatus]:
        """Return each model's state of loading, from memory."""
        return self._engine.status()

    def notes(self) -> dict[str, str]:
        """Return a note for the operator by model, for models that serve with a restriction."""
        return self._engine.notes()

    def weight_bytes(self, model: str) -> int:
        """Return the bytes of the weight files of a model of the pack; the backbone may share the classifier's."""
        pack = self.pack
        folders = [pack.part(model), pack.part(CLASSIFIER)] if model == BACKBONE else [pack.part(model)]
        folder = next((folder for folder in folders if folder.is_dir()), None)
        return 0 if folder is None else sum(file.stat().st_size for file in folder.rglob("*.safetensors"))

    def expected_wait_s(self, model: str) -> float:
        """Estimate the seconds until the engine begins a new interactive request of this model, >= 0."""
        return self._engine.expected_wait_s(model)

    def refuse_waiting(self) -> None:
        """Fail every request that the engine has not begun, as unavailable; those under way continue."""
        self._engine.refuse_waiting()

    @property
    def is_alive(self) -> bool:
        """Whether the engine's device thread runs."""
        return self._engine.is_alive

    async def render(
        self,
        spec: ImageSpec,
        *,
        labels: Sequence[str] | None = None,
        priority: Priority = Priority.INTERACTIVE,
        on_step: Callable[[int, int], None] | None = None,
    ) -> RenderedImage:
        """Make one image, encode it, and score it if labels are given.

        Args:
            spec: What to make.
            labels: Texts to score it against.
            priority: Interactive requests go first.
            on_step: Called on the event loop with the steps done and those to do in all: with 0 done once the engine
                has taken the image, then after each step.

        Raises:
            ModelNotReady: The diffusion model (or CLIP, for labels) is not loaded.
            QueueFull: The engine takes no more requests.
            InferenceFailed: The model failed on this image.
        """
        image = await self._draw(spec, priority, on_step)
        lineage = self._lineage(spec)
        data, sha256 = await asyncio.to_thread(_encode, image.pixels, spec.output_format, lineage)
        scores = await self._score_labels(image.pixels, spec.prompt, labels, priority) if labels else {}
        timings = {name: round(getattr(image, name), 3) for name in ("queued_ms", "denoising_ms", "decoding_ms")}
        info = ImageInfo(
            sha256=sha256,
            flagged=image.flagged,
            lineage=lineage,
            warnings=_warnings(image),
            timings=timings,
            num_bytes=len(data),
            **scores,
        )
        return RenderedImage(data, info)

    async def score(
        self,
        load: LoadImage,
        texts: Sequence[str],
        *,
        priority: Priority = Priority.INTERACTIVE,
        owner: object = None,
    ) -> ClipScores:
        """Score an image against texts with CLIP, at least one; up to `TEXTS_AT_ONCE` keep the step short."""
        prepare = _loaded(self._facts.prepare_clip)
        payload = await self._preparation.run(lambda: prepare(load(), texts), owner=owner)
        return cast(ClipScores, await self._ask(CLIP, payload, priority))

    async def embed_texts(self, texts: Sequence[str]) -> ClipTexts:
        """Return CLIP's embeddings of texts, 1 to `TEXTS_AT_ONCE`; behind interactive requests."""
        payload = _loaded(self._facts.prepare_texts)(texts)
        return cast(ClipTexts, await self._ask(CLIP, payload, Priority.BACKGROUND))

    async def classify(
        self, load: LoadImage, *, priority: Priority = Priority.INTERACTIVE, owner: object = None
    ) -> np.ndarray:
        """Return the pretrained classifier's probabilities, (K,) float32."""
        preprocess = _loaded(self._facts.classifier_pixels)
        pixels = await self.prepare(load, preprocess, owner=owner)
        result: Classification = await self._ask(CLASSIFIER, ClassifyPayload(pixels), priority)
        return result.probabilities

    async def prepare(self, load: LoadImage, preprocess: Preprocess, *, owner: object = None) -> torch.Tensor:
        """Return what a preprocessing makes of an image, (3, H, W) float32; on a preparation thread."""
        return await self._preparation.run(lambda: preprocess(load()), owner=owner)

    def close(self) -> None:
        """Stop preparing pictures and loading backbones; for after the engine is closed."""
        self._preparation.close()
        self.backbones.close()

    async def _draw(
        self, spec: ImageSpec, priority: Priority, on_step: Callable[[int, int], None] | None
    ) -> GeneratedImage:
        cost = cost_of(spec)
        if on_step is None:
            return cast(GeneratedImage, await self._ask(DIFFUSION, spec, priority, cost))
        loop = asyncio.get_running_loop()

        def report(done: int, steps: int) -> None:
            # On the device thread, which must not wait for the loop.
            loop.call_soon_threadsafe(on_step, done, steps)

        submitted = self._engine.submit(DIFFUSION, spec, priority=priority, cost=cost, on_step=report)
        on_step(0, cost.steps)
        return cast(GeneratedImage, await asyncio.wrap_future(submitted))

    def _lineage(self, spec: ImageSpec) -> dict[str, Any]:
        """Return what is recorded with the image, in its row and in its file: what its pixels depend on."""
        runtime = self.runtime
        return {
            **spec.to_json(),
            "pack": self.pack.name,
            "pack_revision": self.pack.revision,
            "device": runtime.device,
            "dtype": runtime.dtype,
            "num_threads": runtime.num_threads,
            "deterministic": runtime.deterministic,
            "compiled": runtime.compiled,
            "versions": runtime.versions,
        }

    async def _score_labels(
        self, pixels: np.ndarray, prompt: str, labels: Sequence[str], priority: Priority
    ) -> dict[str, Any]:
        """Return the fields of `ImageInfo` that CLIP gives."""
        # A logit does not depend on the other texts, only the softmax does. So the prompt is scored with the labels,
        # and more texts than `TEXTS_AT_ONCE` in several requests.
        image = Image.fromarray(pixels)
        texts, logits = [*labels, prompt], list[float]()
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            scores = await self.score(lambda: image, texts[start : start + TEXTS_AT_ONCE], priority=priority)
            logits += scores.logits
        probabilities = torch.tensor(logits[:-1]).softmax(dim=0).tolist()
        return {
            "clip_score": 100 * max(scores.cosines[-1], 0.0),
            "label_probabilities": [
                {"label": label, "probability": probability}
                for label, probability in zip(labels, probabilities, strict=True)
            ],
            "clip_embedding": base64.b64encode(scores.image_embed.astype("<f2").tobytes()).decode(),
        }

    async def _ask(self, model: str, payload: object, priority: Priority, cost: RequestCost = ONE_ROW) -> Any:
        # Cancelling the awaiting task cancels the engine's future, which leaves at the next step.
        return await asyncio.wrap_future(self._engine.submit(model, payload, priority=priority, cost=cost))


def resident_backbones(facts: LoadedFacts) -> dict[str, Resident]:
    """Return how to find the backbones that the engine loads at its start."""
    return {PACK_BACKBONE: Resident(BACKBONE, facts.find_backbone), CLIP: Resident(CLIP, facts.find_clip_backbone)}


def _loaded(part: T | None) -> T:
    if part is None:
        raise ModelNotReady("The model is not loaded. /readyz has the reason.", retry_after_s=5)
    return part


def _encode(pixels: np.ndarray, output_format: OutputFormat, lineage: dict[str, Any]) -> tuple[bytes, str]:
    data = encode_image(pixels, output_format, lineage)
    return data, hashlib.sha256(data).hexdigest()


def _warnings(image: GeneratedImage) -> list[dict[str, str]]:
    cuts = {"prompt_truncated": image.prompt_cut, "negative_prompt_truncated": image.negative_prompt_cut}
    return [{"code": code, "detail": f"Only 77 tokens are used. Cut off: {cut}"} for code, cut in cuts.items() if cut]
