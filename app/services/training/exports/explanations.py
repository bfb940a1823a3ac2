"""Heat maps of classified images: where the classifier saw the class that it named.

Imports no HTTP framework and no SQL. `png` is called on the event loop; modules are loaded and run on the one thread of
the pool `explanations`, pictures are prepared on the preparation threads.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from app.error_codes import ErrorCode
from app.errors import Invalid, ModelNotReady
from app.exporting.classifier import Classifier, ModelFacts, Origin
from app.exporting.errors import NotExportable
from app.exporting.explain import explain
from app.modelpacks.pack import PackError
from app.modelpacks.preprocessing import Preprocessing
from app.node.combined import is_combined
from app.services.evaluation.subject import backbone_mismatch
from app.services.inference.features import LoadImage
from app.services.inference.modules import PlainModule
from app.services.inference.service import Inference
from app.services.process.thread_pools import WorkPool
from app.services.training.models import Head

_RETRY_AFTER_S = 60


@dataclass(frozen=True, slots=True)
class Explained:
    """What is explained: a trained model, a backbone's own head, or with neither the pack's classifier."""

    head: Head | None = None
    backbone: str | None = None

    @property
    def name(self) -> str | None:
        """Return the name of the backbone; None: the pack's classifier."""
        return self.head.backbone if self.head else self.backbone


class Explanations:
    """Draws heat maps; keeps the module that it used last, if its weights are within the bound."""

    def __init__(self, inference: Inference, pool: WorkPool, max_bytes: int) -> None:
        """Wire the service; `pool` has one thread, `max_bytes` bounds the weights that are kept between requests."""
        self._inference = inference
        self._pool = pool
        self._max_bytes = max_bytes
        # Used on the pool's thread alone.
        self._kept: tuple[tuple[str | None, str], PlainModule] | None = None

    def require(self, explained: Explained) -> None:
        """Refuse what cannot be explained, before it is classified.

        Raises:
            Invalid: `combined_backbones`.
        """
        if explained.name is not None and is_combined(explained.name):
            detail = (
                f"The model works on several backbones, {explained.name}, and a heat map shows what one sees. Send the "
                "request without explain, or use a model on one backbone."
            )
            raise Invalid.field("#/explain", detail, ErrorCode.COMBINED_BACKBONES)

    async def png(
        self, load: LoadImage, explained: Explained, class_index: int, *, owner: object = None, caller: str = ""
    ) -> bytes:
        """Return the image, as the network got it, with the heat of a class over it, as PNG, for a caller.

        Raises:
            Conflict: The node does not have the backbone weights that the model was trained on.
            Invalid: The image is broken, or the backbone has no head of its own.
            QueueFull, ModelNotReady: Try again.
        """
        sha256 = await asyncio.to_thread(self._weights_of, explained)
        plain = await self._pool.run(partial(self._load, explained, sha256), caller=caller)
        settings = explained.head and explained.head.preprocessing
        is_same = settings is None or settings == plain.preprocessing
        preprocess = plain.pixels if is_same else Preprocessing.from_config(settings or {}).transform()
        pixels = await self._inference.prepare(load, preprocess, owner=owner, caller=caller)
        return await self._pool.run(partial(_draw, _classifier(plain, explained), pixels, class_index), caller=caller)

    def _weights_of(self, explained: Explained) -> str:
        """Return the hash of the weights that are needed; empty for the pack's classifier, which never changes."""
        if explained.head is not None:
            return explained.head.backbone_sha256
        if explained.backbone is None:
            return ""
        return self._inference.backbones.describe(explained.backbone, "#/model").facts.weights_sha256

    def _load(self, explained: Explained, weights_sha256: str) -> PlainModule:
        key = explained.name, weights_sha256
        if self._kept is not None and self._kept[0] == key:
            return self._kept[1]
        self._kept = None  # before the next is loaded: one at a time
        with _loading_errors():
            modules = self._inference.modules
            plain = modules.load_classifier() if key[0] is None else modules.load(key[0])
        if key[0] is not None and plain.weights_sha256 != weights_sha256:
            raise backbone_mismatch(key[0], weights_sha256, "has other weights on this node")
        if sum(tensor.nbytes for tensor in plain.module.state_dict().values()) <= self._max_bytes:
            self._kept = key, plain
        return plain


@contextmanager
def _loading_errors() -> Iterator[None]:
    try:
        yield
    except (PackError, NotExportable) as error:
        raise ModelNotReady(error.detail, retry_after_s=_RETRY_AFTER_S) from error


def _classifier(plain: PlainModule, explained: Explained) -> Classifier:
    head = explained.head
    if head is None and plain.head is None:
        detail = "This backbone has no head of its own to explain. Name a trained model."
        raise Invalid.field("#/model", detail, ErrorCode.NOTHING_TO_EXPLAIN)
    own: Any = plain.head if head is None else head.probe
    facts = ModelFacts(
        name="",
        network=plain.network,
        preprocessing=(head and head.preprocessing) or plain.preprocessing,
        classes=tuple(own.classes if head is None else head.classes),
        num_features=plain.num_features,
        normalise=head is not None and (head.probe.normalise or plain.is_unit),
        origin=Origin(""),
    )
    return Classifier(facts, plain.module, own.weight, own.bias)


def _draw(classifier: Classifier, pixels: torch.Tensor, class_index: int) -> bytes:
    return explain(classifier, pixels, class_index).png
