"""The models of this node as the other services use them: images in memory in, images and figures out.

Runs in the API process; every call awaits the engine's device thread, never inside a transaction.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from PIL import Image

from app.engine.clip import ClipPayload, ClipScores
from app.engine.diffusion import DiffusionPayload, GeneratedImage
from app.engine.engine import ONE_ROW, Engine, ModelStatus
from app.engine.request import Demand, Priority
from app.engine.resnet import Classification, ClassifyPayload, FeaturePayload
from app.errors import ModelNotReady
from app.modelpacks.pack import ModelPack
from app.services.image_specs import ImageSpec, RenderedImage, SizeRules
from app.storage.images import encode_image

DIFFUSION, CLIP, CLASSIFIER, BACKBONE = "diffusion", "clip", "classifier", "backbone"


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the pixels depend on besides the request: recorded with every image."""

    device: str
    dtype: str
    num_threads: int
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class BackboneFacts:
    """What features depend on besides the image."""

    architecture: str
    weights_sha256: str
    preprocessing: str


@dataclass(slots=True)
class LoadedFacts:
    """What is known only once a model is loaded; written by the engine's loader thread, read by all."""

    classes: list[str] | None = None
    backbone: BackboneFacts | None = None


class Inference:
    """Rendering, scoring and classifying on the node's engine."""

    def __init__(self, engine: Engine, pack: ModelPack | None, runtime: Runtime, facts: LoadedFacts) -> None:
        """Use a started engine.

        Args:
            engine: Has the models `diffusion`, `clip`, `classifier` and `backbone`.
            pack: The pack they come from; None if it could not be found, then every model is failed.
            runtime: Where they run.
            facts: Filled while the models load.
        """
        self._engine = engine
        self._pack = pack
        self._facts = facts
        self.runtime = runtime

    @property
    def pack(self) -> ModelPack:
        """The loaded pack.

        Raises:
            ModelNotReady: There is none.
        """
        if self._pack is None:
            raise ModelNotReady("the model pack could not be found; /readyz tells why", retry_after_s=30)
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
            raise ModelNotReady("the classifier is not loaded; /readyz tells why", retry_after_s=5)
        return self._facts.classes

    @property
    def backbone(self) -> BackboneFacts:
        """What features depend on.

        Raises:
            ModelNotReady: The backbone is not loaded.
        """
        if self._facts.backbone is None:
            raise ModelNotReady("the backbone is not loaded; /readyz tells why", retry_after_s=5)
        return self._facts.backbone

    def status(self) -> dict[str, ModelStatus]:
        """Return each model's state of loading, from memory."""
        return self._engine.status()

    @property
    def is_alive(self) -> bool:
        """Whether the engine's device thread lives."""
        return self._engine.is_alive

    async def render(
        self, spec: ImageSpec, *, labels: Sequence[str] | None = None, priority: Priority = Priority.INTERACTIVE
    ) -> RenderedImage:
        """Make one image, encode it, and score it if labels are given.

        Raises:
            ModelNotReady: The diffusion model (or CLIP, for labels) is not loaded.
            QueueFull: The engine takes no more requests.
            InferenceFailed: The model failed on this image.
        """
        payload = DiffusionPayload(
            prompt=spec.prompt,
            negative_prompt=spec.negative_prompt,
            guidance_scale=spec.guidance_scale,
            num_inference_steps=spec.num_inference_steps,
            height=spec.height,
            width=spec.width,
            seed=spec.seed,
            noise_scheduler=spec.scheduler,
        )
        image: GeneratedImage = await self._ask(DIFFUSION, payload, priority, payload.demand)
        lineage = {**spec.to_json(), **self._origin()}
        data = await asyncio.to_thread(encode_image, image.pixels, spec.output_format, lineage)
        scores = await self._judge(Image.fromarray(image.pixels), spec.prompt, labels, priority) if labels else {}
        return RenderedImage(
            data=data,
            sha256=hashlib.sha256(data).hexdigest(),
            flagged=image.flagged,
            lineage=lineage,
            warnings=_warnings(image),
            timings={
                "queued_ms": round(image.queued_ms, 3),
                "denoising_ms": round(image.denoising_ms, 3),
                "decoding_ms": round(image.decoding_ms, 3),
            },
            **scores,
        )

    async def score(
        self, image: Image.Image, texts: Sequence[str], *, priority: Priority = Priority.INTERACTIVE
    ) -> ClipScores:
        """Score an image against texts with CLIP; 1 <= len(texts) <= 256."""
        return cast(ClipScores, await self._ask(CLIP, ClipPayload(image, tuple(texts)), priority))

    async def classify(self, image: Image.Image) -> np.ndarray:
        """Return the pretrained classifier's probabilities, (K,) float32."""
        result: Classification = await self._ask(CLASSIFIER, ClassifyPayload(image), Priority.INTERACTIVE)
        return result.probabilities

    async def features(self, image: Image.Image, *, priority: Priority = Priority.INTERACTIVE) -> np.ndarray:
        """Return the frozen backbone's features of an image, (D,) float32."""
        return cast(np.ndarray, await self._ask(BACKBONE, FeaturePayload(image), priority))

    def _origin(self) -> dict[str, Any]:
        runtime = self.runtime
        return {
            "pack": self.pack.name,
            "pack_revision": self.pack.revision,
            "device": runtime.device,
            "dtype": runtime.dtype,
            "num_threads": runtime.num_threads,
            "versions": runtime.versions,
        }

    async def _judge(
        self, image: Image.Image, prompt: str, labels: Sequence[str], priority: Priority
    ) -> dict[str, Any]:
        by_label, by_prompt = await asyncio.gather(
            self.score(image, labels, priority=priority), self.score(image, [prompt], priority=priority)
        )
        return {
            "clip_score": 100 * max(by_prompt.cosines[0], 0.0),
            "label_probabilities": [
                {"label": label, "probability": probability}
                for label, probability in zip(labels, by_label.probabilities, strict=True)
            ],
        }

    async def _ask(self, model: str, payload: object, priority: Priority, demand: Demand = ONE_ROW) -> Any:
        # Cancelling the awaiting task cancels the engine's future, which leaves at the next step.
        return await asyncio.wrap_future(self._engine.submit(model, payload, priority=priority, demand=demand))


def _warnings(image: GeneratedImage) -> list[dict[str, str]]:
    cuts = {"prompt_truncated": image.prompt_cut, "negative_prompt_truncated": image.negative_prompt_cut}
    return [{"code": code, "detail": f"only 77 tokens are used; cut off: {cut}"} for code, cut in cuts.items() if cut]
