"""The models of this node as the other services use them: specs and images in memory in, images and numbers out.

Imports neither HTTP nor SQL. Runs on the API process's event loop; every call awaits the engine's device thread, so
none is made inside a transaction.
"""

import asyncio
import base64
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from app.engine.clip.runner import ClipScores, ClipTexts
from app.engine.diffusion.runner import GeneratedImage, cost_of
from app.engine.engine import ONE_ROW, Engine
from app.engine.loader import ModelStatus
from app.engine.request import Priority, RequestCost
from app.engine.resnet import Classification, ClassifyPayload
from app.engine.scheduling.device_time import DeviceEstimate, Work
from app.errors import Invalid, ModelNotReady
from app.image_spec import ImageInfo, ImageSpec, OutputFormat, RenderedImage
from app.modelpacks.pack import ModelPack
from app.node.protocol import BackboneFacts
from app.schemas.common import MAX_LABELS
from app.services.evaluation.subject import backbone_mismatch
from app.services.images.spec import SizeRules
from app.services.inference.backbones import Backbones
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
from app.storage.images import encode_image

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
        priority: Priority = Priority.INTERACTIVE,
        on_step: Callable[[int, int], None] | None = None,
        caller: str = "",
    ) -> RenderedImage:
        """Make one image, encode it, and score it if labels are given.

        Args:
            spec: What to make.
            labels: Texts to score it against.
            priority: Interactive requests go first.
            on_step: Called on the event loop with the steps done and those to do in all: with 0 done once the engine
                has taken the image, then after each step.
            caller: Whose image it is.

        Raises:
            ModelNotReady: The diffusion model (or CLIP, for labels) is not loaded.
            QueueFull: The engine takes no more requests.
            InferenceFailed: The model failed on this image.
        """
        image = await self._draw(spec, priority, on_step, caller)
        lineage = self._lineage(spec)
        data, sha256 = await asyncio.to_thread(_encode, image.pixels, spec.output_format, lineage)
        scores = await self._score_labels(image.pixels, spec.prompt, labels, priority, caller) if labels else {}
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
        caller: str = "",
    ) -> ClipScores:
        """Score an image against texts with CLIP, at least one; up to `TEXTS_AT_ONCE` keep the step short."""
        prepare = loaded(self._facts.prepare_clip)
        payload = await self._preparation.run(lambda: prepare(load(), texts), owner=owner, caller=caller)
        return cast(ClipScores, await self._ask(CLIP, payload, priority, caller))

    async def embed_texts(self, texts: Sequence[str], *, caller: str = "") -> ClipTexts:
        """Return CLIP's embeddings of texts, 1 to `TEXTS_AT_ONCE`; behind interactive requests."""
        payload = loaded(self._facts.prepare_texts)(texts)
        return cast(ClipTexts, await self._ask(CLIP, payload, Priority.BACKGROUND, caller))

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

    def close(self) -> None:
        """Stop preparing pictures and loading backbones; for after the engine is closed."""
        self._preparation.close()
        self.backbones.close()

    async def _draw(
        self, spec: ImageSpec, priority: Priority, on_step: Callable[[int, int], None] | None, caller: str
    ) -> GeneratedImage:
        cost = cost_of(spec)
        if on_step is None:
            return cast(GeneratedImage, await self._ask(DIFFUSION, spec, priority, caller, cost))
        loop = asyncio.get_running_loop()

        def report(done: int, steps: int) -> None:
            # On the device thread, which must not wait for the loop.
            loop.call_soon_threadsafe(on_step, done, steps)

        submitted = self._engine.submit(DIFFUSION, spec, priority=priority, cost=cost, on_step=report, caller=caller)
        on_step(0, cost.steps)
        return cast(GeneratedImage, await asyncio.wrap_future(submitted))

    def _lineage(self, spec: ImageSpec) -> dict[str, Any]:
        """Return what is recorded with the image, in its row and in its file: what its pixels depend on."""
        runtime = self.runtime
        forecast = {} if spec.speed == "exact" else {"forecast": spec.forecast}
        return {
            **spec.to_json(),
            **forecast,
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
        probabilities = torch.tensor(logits[:-1]).softmax(dim=0).tolist()
        return {
            "clip_score": 100 * max(scores.cosines[-1], 0.0),
            "label_probabilities": [
                {"label": label, "probability": probability}
                for label, probability in zip(labels, probabilities, strict=True)
            ],
            "clip_embedding": base64.b64encode(scores.image_embed.astype("<f2").tobytes()).decode(),
        }

    async def _ask(
        self, model: str, payload: object, priority: Priority, caller: str, cost: RequestCost = ONE_ROW
    ) -> Any:
        # Cancelling the awaiting task cancels the engine's future, which leaves at the next step.
        submitted = self._engine.submit(model, payload, priority=priority, cost=cost, caller=caller)
        return await asyncio.wrap_future(submitted)


def _encode(pixels: np.ndarray, output_format: OutputFormat, lineage: dict[str, Any]) -> tuple[bytes, str]:
    data = encode_image(pixels, output_format, lineage)
    return data, hashlib.sha256(data).hexdigest()


def _warnings(image: GeneratedImage) -> list[dict[str, str]]:
    cuts = {"prompt_truncated": image.prompt_cut, "negative_prompt_truncated": image.negative_prompt_cut}
    return [{"code": code, "detail": f"Only 77 tokens are used. Cut off: {cut}"} for code, cut in cuts.items() if cut]
