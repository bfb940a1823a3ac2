"""The models of this node as the other services use them: specs and images in memory in, images and numbers out.

Imports neither HTTP nor SQL. Runs on the API process's event loop; every call awaits the engine's device thread, so
none is made inside a transaction.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from PIL import Image

from app.engine.clip.runner import ClipScores, ClipTexts
from app.engine.diffusion.encoder import ImageToImage
from app.engine.diffusion.previews import LatentColours
from app.engine.diffusion.runner import GeneratedImage, cost_of
from app.engine.diffusion.texts.weighted_prompts import plain_text
from app.engine.engine import Engine
from app.engine.loader import ModelStatus
from app.engine.positions import OnPosition, QueuePositions
from app.engine.request import Priority, RequestCost
from app.engine.resnet import Classification, ClassifyPayload
from app.engine.scheduling.device_time import DeviceEstimate, Work
from app.errors import InferenceFailed, Invalid, ModelNotReady
from app.image_spec import DrawnBy, ImageSpec, RenderedImage
from app.metrics.node import LoadedWeights
from app.modelpacks.adapters import AdapterFolder
from app.modelpacks.pack import ModelPack
from app.node.protocol import BackboneFacts
from app.schemas.common import MAX_LABELS
from app.services.evaluation.subject import backbone_mismatch
from app.services.images.previews import Previews, ReportStep, on_this_loop
from app.services.images.spec import SizeRules
from app.services.inference.backbones import Backbones
from app.services.inference.diffusion.adapters import Adapters
from app.services.inference.diffusion.models import Models
from app.services.inference.diffusion.rendering import SourcePictures, clip_fields, encode, info_of, lineage_of
from app.services.inference.diffusion.rules import DrawingRules
from app.services.inference.features import Features, LoadImage
from app.services.inference.loaded import (
    BACKBONE,
    CLASSIFIER,
    CLIP,
    DIFFUSION,
    LoadedFacts,
    Preprocess,
    Runtime,
    loaded,
    resident_backbones,
)
from app.services.inference.modules import NodeModules, PlainModules
from app.services.inference.preprocessing import PreparationPool

T = TypeVar("T")

# Texts of one request to CLIP, labels and a prompt: more would occupy the device for too long.
TEXTS_AT_ONCE = MAX_LABELS + 1


class Inference:
    """Rendering, scoring and classifying on the node's engine.

    An `owner` stands for one request, and a `caller` for who sent it: callers share the engine evenly, and the pictures
    of several callers and owners are prepared in turn.
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
        adapters: Adapters | None = None,
        models: Models | None = None,
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
            adapters: The LoRAs and embeddings of requests; closed by `close`. Default: there are none.
            models: The diffusion models of requests; closed by `close`. Default: the pack's alone.
        """
        self._engine = engine
        self._pack = pack
        self._facts = facts
        self._preparation = preparation or PreparationPool()
        self._previews = Previews()
        self._positions = QueuePositions(DIFFUSION)
        engine.observe(self._positions)
        self.runtime = runtime
        self.backbones = backbones or Backbones(engine, resident=resident_backbones(facts))
        self.modules = modules or NodeModules(lambda: self.pack, Path())
        self._adapters = adapters or Adapters(facts.find_adapters, has_folder=False)
        self.models = models or Models(facts.find_models, facts.default_model)
        self.drawing = DrawingRules(facts, self._adapters)
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

    def drawn_by(self, model: str | None) -> DrawnBy:
        """Return what draws images of which a request names the model, or none; outside of transactions.

        Raises:
            ModelNotReady: There is no pack, or the models beside it are not listed yet.
            Invalid: There is no such model, or it cannot be used; see `Models.revision`.
        """
        pack = self.pack
        if model is None or model == pack.name:
            return DrawnBy(pack.name, pack.revision)
        return DrawnBy(model, self.models.revision(model))

    @property
    def sizes(self) -> SizeRules:
        """The sizes that the pack's diffusion model draws, and those beside it."""
        return self.drawing.sizes(self.pack)

    @property
    def adapters(self) -> AdapterFolder | None:
        """The LoRAs and embeddings of the node; None without a folder of them, and until they are read."""
        return self.drawing.folder()

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
        folder = next((folder for folder in folders if folder.exists()), None)
        if folder is not None and folder.is_file():
            return folder.stat().st_size
        return 0 if folder is None else sum(file.stat().st_size for file in folder.rglob("*.safetensors"))

    def weights(self) -> dict[str, LoadedWeights]:
        """Return what is loaded beside the default diffusion model: others, and sets of adapters. Any thread."""
        return {"model": self.models.state(), "adapters": self._adapters.state()}

    def expected_wait_s(self, model: str) -> float:
        """Estimate the seconds until the engine begins a new interactive request of this model, >= 0."""
        return self._engine.expected_wait_s(model)

    def estimate(self, model: str, work: Sequence[Work]) -> DeviceEstimate:
        """Estimate the device's time for background work of a model that is not submitted yet."""
        return self._engine.estimate(model, work)

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
        scores_prompt: bool = False,
        priority: Priority = Priority.INTERACTIVE,
        on_step: ReportStep | None = None,
        preview: int | None = None,
        on_position: OnPosition | None = None,
        caller: str = "",
        pictures: SourcePictures | None = None,
    ) -> RenderedImage:
        """Make one image, encode it, and score it if labels are given.

        Args:
            spec: What to make.
            labels: Texts to score it against.
            scores_prompt: Whether it is scored against its prompt without labels too.
            priority: Interactive requests go first.
            on_step: Called on the event loop with the steps done and those to do in all: with 0 done once the engine
                has taken the image, then after each step; and with a PNG, see `preview`.
            preview: Every n-th step is reported with a PNG of the image that it predicts, of the latents' size; None:
                none is.
            on_position: Called on the event loop while the image waits for its first step: with the number of requests
                that go before it, once if there are any, and whenever it changes.
            caller: Whose image it is.
            pictures: Those that the spec names; None: it names none.

        Raises:
            Invalid: The node has no such model, LoRA or embedding, or cannot use it.
            ModelNotReady: The diffusion model (or CLIP, for scores) is not loaded.
            QueueFull: The engine takes no more requests.
            InferenceFailed: The model failed on this image.
        """
        if (spec.init_image is None) != (pictures is None):
            raise InferenceFailed("The pictures of this image are missing. Ask for it again.")
        spec = self._adapters.with_tokens(spec, self.drawing.folder(spec.model))
        payload = spec if pictures is None else ImageToImage(spec, pictures.image, pictures.mask)
        async with (
            self.models.hold(spec.model) as model,
            self._adapters.hold(spec.adapters, model.adapters) as adapter_files,
        ):
            submitted = self._begin(payload, cost_of(spec), priority, on_step, preview, caller, model.colours)
            if on_position is not None:
                self._positions.follow(submitted, on_this_loop(on_position))
            image: GeneratedImage = await asyncio.wrap_future(submitted)
        lineage = lineage_of(spec, self.pack, self.runtime, model, adapter_files)
        data, sha256 = await asyncio.to_thread(encode, image.pixels, spec.output_format, lineage)
        text = plain_text(spec.prompt) if spec.prompt_syntax == "weighted" else spec.prompt
        is_scored = bool(labels) or scores_prompt
        scores = await self._score_labels(image.pixels, text, labels or (), priority, caller) if is_scored else {}
        info = info_of(image, spec, self.pack, sha256=sha256, num_bytes=len(data), lineage=lineage, scores=scores)
        return RenderedImage(data, info)

    async def score(
        self,
        load: LoadImage,
        texts: Sequence[str],
        *,
        priority: Priority = Priority.INTERACTIVE,
        owner: object = None,
        caller: str = "",
    ) -> ClipScores:
        """Score an image against texts with CLIP, at least one; up to `TEXTS_AT_ONCE` keep the step short."""
        prepare = loaded(self._facts.prepare_clip)
        payload = await self._preparation.run(lambda: prepare(load(), texts), owner=owner, caller=caller)
        return cast(ClipScores, await self._ask(CLIP, payload, priority, caller))

    async def embed_texts(
        self, texts: Sequence[str], *, priority: Priority = Priority.BACKGROUND, caller: str = ""
    ) -> ClipTexts:
        """Return CLIP's embeddings of texts, 1 to `TEXTS_AT_ONCE`; by default behind interactive requests."""
        payload = await asyncio.to_thread(loaded(self._facts.prepare_texts), texts)
        return cast(ClipTexts, await self._ask(CLIP, payload, priority, caller))

    async def classify(
        self, load: LoadImage, *, priority: Priority = Priority.INTERACTIVE, owner: object = None, caller: str = ""
    ) -> np.ndarray:
        """Return the pretrained classifier's probabilities, (K,) float32."""
        preprocess = loaded(self._facts.classifier_pixels)
        pixels = await self.prepare(load, preprocess, owner=owner, caller=caller)
        result: Classification = await self._ask(CLASSIFIER, ClassifyPayload(pixels), priority, caller)
        return result.probabilities

    def require_backbone(self, name: str, weights_sha256: str) -> BackboneFacts:
        """Return what features of the backbone that a model was trained on depend on; may hash a file.

        Raises:
            Conflict: `model_backbone_mismatch`: the node has no such backbone, or other weights than these.
            ModelNotReady: It is still loading, or its files cannot be used.
        """
        try:
            facts = self.backbones.describe(name).facts
        except Invalid:
            raise backbone_mismatch(name, weights_sha256, "is not on this node") from None
        if facts.weights_sha256 != weights_sha256:
            raise backbone_mismatch(name, weights_sha256, "has other weights on this node")
        return facts

    async def prepare(
        self, load: LoadImage, preprocess: Preprocess, *, owner: object = None, caller: str = ""
    ) -> torch.Tensor:
        """Return what a preprocessing makes of an image, (3, H, W) float32; on a preparation thread."""
        return await self._preparation.run(lambda: preprocess(load()), owner=owner, caller=caller)

    async def prepare_pictures(self, call: Callable[[], T], *, owner: object = None, caller: str = "") -> T:
        """Run a call that decodes pictures on a preparation thread."""
        return await self._preparation.run(call, owner=owner, caller=caller)

    def close(self) -> None:
        """Stop preparing pictures and loading backbones; for after the engine is closed."""
        self._preparation.close()
        self._previews.close()
        self.backbones.close()
        self._adapters.close()
        self.models.close()

    def _begin(
        self,
        payload: ImageSpec | ImageToImage,
        cost: RequestCost,
        priority: Priority,
        on_step: ReportStep | None,
        preview: int | None,
        caller: str,
        colours: LatentColours | None,
    ) -> "Future[Any]":
        """Submit an image, whose steps are reported on this event loop."""
        if on_step is None:
            return self._engine.submit(DIFFUSION, payload, priority=priority, cost=cost, caller=caller)
        report = on_this_loop(on_step)
        reported = report if preview is None or colours is None else self._previews.tap(colours, preview, report)
        submitted = self._engine.submit(
            DIFFUSION, payload, priority=priority, cost=cost, on_step=reported, caller=caller
        )
        on_step(0, cost.steps)
        return submitted

    async def _score_labels(
        self, pixels: np.ndarray, prompt: str, labels: Sequence[str], priority: Priority, caller: str
    ) -> dict[str, Any]:
        """Return the fields of `ImageInfo` that CLIP gives."""
        # A logit does not depend on the other texts, only the softmax does. So the prompt is scored with the labels,
        # and more texts than `TEXTS_AT_ONCE` in several requests.
        image = Image.fromarray(pixels)
        texts, logits = [*labels, prompt], list[float]()
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[start : start + TEXTS_AT_ONCE]
            scores = await self.score(lambda: image, some, priority=priority, caller=caller)
            logits += scores.logits
        return clip_fields(scores, labels, logits[:-1])

    async def _ask(self, model: str, payload: object, priority: Priority, caller: str) -> Any:
        # Cancelling the awaiting task cancels the engine's future, which leaves at the next step.
        submitted = self._engine.submit(model, payload, priority=priority, caller=caller)
        return await asyncio.wrap_future(submitted)
