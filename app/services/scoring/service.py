"""Scoring images against labels, and classifying them.

Runs on the event loop of the API process; decoding and reading of files run on pool threads.
"""

import asyncio
import base64
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from app.access.caller import Caller
from app.error_codes import ErrorCode
from app.errors import FieldError, FileLost, Invalid, NotFound, PayloadTooLarge, UnsupportedImage
from app.modelpacks.photo import PHOTO
from app.names import equal_names, name_key
from app.schemas.generations import ModelRef, WarningRead
from app.schemas.judging import (
    ClassifyRequest,
    ClassifyResult,
    ClipScoreRequest,
    ClipScoreResult,
    JudgedImages,
    LabelScore,
    Prediction,
)
from app.services.images.base64_text import decode_base64
from app.services.images.service import ImageService
from app.services.inference.features import LoadImage
from app.services.inference.preprocessing import PictureRequest
from app.services.inference.service import Inference
from app.services.limits import Limits
from app.services.scoring.nearest import NearestImages
from app.services.training.exports.explanations import Explained, Explanations
from app.services.training.models import Head, ModelService
from app.storage.image_formats import DecodeImage, decode_image
from app.storage.picture_size import is_large

T = TypeVar("T")


class _Classify(Protocol):
    def __call__(self, load: LoadImage, *, owner: object, caller: str) -> Awaitable[np.ndarray]:
        """Return the probabilities of an image, (K,)."""


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The classifier of a request: its reference, its labels, how it classifies, and what a heat map explains."""

    ref: ModelRef
    classes: Sequence[str]
    classify: _Classify
    explained: Explained


@dataclass(frozen=True, slots=True)
class Upload:
    """One image of a request: its bytes, its JSON Pointer in the request, and its id if it is a stored one."""

    data: bytes
    pointer: str
    image_id: str | None = None


class JudgingService:
    """CLIP scores and classifications."""

    def __init__(
        self,
        inference: Inference,
        images: ImageService,
        models: ModelService,
        limits: Limits,
        explanations: Explanations,
        nearest: NearestImages,
        *,
        decode: DecodeImage = decode_image,
    ) -> None:
        """Wire the service; `decode` reads untrusted image files."""
        self._decode = decode
        self._inference = inference
        self._images = images
        self._models = models
        self._limits = limits
        self._explanations = explanations
        self._nearest = nearest

    def pack_ref(self) -> ModelRef:
        """Return the reference of the loaded pack, for answers of its models."""
        pack = self._inference.pack
        return ModelRef(id=None, name=pack.name, revision=pack.revision)

    async def uploads_of(self, request: JudgedImages, caller: Caller) -> list[Upload]:
        """Return the bytes of the images that a JSON request names; stored ones if the caller sees them.

        Raises:
            Invalid: None or more than one way was used, an id is unknown, or the base64 is broken.
            FileLost: The file of an image is gone or damaged.
        """
        given = [request.image_id, request.image_b64, request.image_ids]
        if sum(value is not None for value in given) != 1:
            raise Invalid("Give exactly one of image_id, image_b64 and image_ids.", code=ErrorCode.ONE_IMAGE_SOURCE)
        if request.image_b64 is not None:
            return [Upload(await decode_base64(request.image_b64, "#/image_b64"), "#/image_b64")]
        ids = [request.image_id] if request.image_id is not None else request.image_ids or []
        pointers = ["#/image_id"] if request.image_id is not None else [f"#/image_ids/{i}" for i in range(len(ids))]
        return await asyncio.to_thread(self._stored, ids, pointers, caller)

    async def score(
        self, uploads: Sequence[Upload], request: ClipScoreRequest, caller: Caller
    ) -> list[ClipScoreResult]:
        """Score each image against the request's labels, in their order; `caller` is whose request it is.

        Raises:
            Invalid: Labels are not all different, the template lacks `{}`, or an image is broken.
            UnsupportedImage, PayloadTooLarge: An image is of another kind or too large.
            ModelNotReady, QueueFull, InferenceFailed: As `Inference`.
        """
        texts, owner = _texts(request), _request_of(uploads)
        scores = await _all(
            _naming(upload, self._inference.score(partial(self._load, upload), texts, owner=owner, caller=caller.id))
            for upload in uploads
        )
        return [
            ClipScoreResult(
                image_id=upload.image_id,
                scores=[
                    LabelScore(label=label, probability=probability, logit=logit, cosine=cosine)
                    for label, probability, logit, cosine in zip(
                        request.labels, score.probabilities, score.logits, score.cosines, strict=True
                    )
                ],
            )
            for upload, score in zip(uploads, scores, strict=True)
        ]

    async def classify(
        self, uploads: Sequence[Upload], request: ClassifyRequest, caller: Caller
    ) -> tuple[ModelRef, list[ClassifyResult]]:
        """Classify each image with the pretrained classifier, with `photo`, or with a model that the caller sees.

        Raises:
            Invalid: There is no such model, or an image is broken.
            Conflict: The node does not have the backbone weights that the model was trained on, or cannot tell which
                training images are `nearest`.
            UnsupportedImage, PayloadTooLarge: An image is of another kind or too large.
            ModelNotReady, QueueFull, InferenceFailed: As `Inference`.
        """
        chosen = await self._choose(request.model, caller)
        return chosen.ref, await self._results(chosen, uploads, request, caller)

    async def explain(
        self, upload: Upload, request: ClassifyRequest, caller: Caller
    ) -> tuple[ModelRef, ClassifyResult, str]:
        """Classify one image, and show where in it the classifier sees the most probable class.

        Returns:
            The model, the result, and a PNG file in base64.

        Raises:
            Invalid: As `classify`, or `combined_backbones`.
            Conflict, UnsupportedImage, PayloadTooLarge, ModelNotReady, QueueFull, InferenceFailed: As `classify`.
        """
        chosen = await self._choose(request.model, caller)
        self._explanations.require(chosen.explained)
        [result] = await self._results(chosen, [upload], request, caller)
        load, owner, index = partial(self._load, upload), _request_of([upload]), result.predictions[0].index
        drawing = self._explanations.png(load, chosen.explained, index, owner=owner, caller=caller.id)
        return chosen.ref, result, base64.b64encode(await _naming(upload, drawing)).decode()

    async def _results(
        self, chosen: _Chosen, uploads: Sequence[Upload], request: ClassifyRequest, caller: Caller
    ) -> list[ClassifyResult]:
        owner = _request_of(uploads)
        if request.nearest is None:
            rows = await _all(
                _naming(upload, chosen.classify(partial(self._load, upload), owner=owner, caller=caller.id))
                for upload in uploads
            )
            return [
                ClassifyResult(image_id=upload.image_id, predictions=_top(row, chosen.classes, request.top_k))
                for upload, row in zip(uploads, rows, strict=True)
            ]
        head = chosen.explained.head
        if head is None:
            detail = "Only a trained model has training images. Name one as model, or leave nearest out."
            raise Invalid.field("#/nearest", detail, ErrorCode.NO_TRAINING_IMAGES)
        return await _all(self._with_nearest(head, upload, request, caller, owner) for upload in uploads)

    async def _with_nearest(
        self, head: Head, upload: Upload, request: ClassifyRequest, caller: Caller, owner: PictureRequest
    ) -> ClassifyResult:
        load = partial(self._load, upload)
        features = await _naming(upload, _features(self._inference, head, load, owner=owner, caller=caller.id))
        nearest = await self._nearest.find(head.ref.id or "", features, request.nearest or 1, caller)
        predictions = _top(head.predict(features[None])[0], head.classes, request.top_k)
        return ClassifyResult(image_id=upload.image_id, predictions=predictions, nearest=nearest)

    async def _choose(self, model: str | None, caller: Caller) -> _Chosen:
        """Return the classifier that `model` names."""
        inference = self._inference
        if model is None or name_key(model) == inference.pack.name:
            return _Chosen(self.pack_ref(), inference.classes, inference.classify, Explained())
        if name_key(model) == PHOTO and PHOTO in inference.backbones.names():
            # On a thread: the first description of `photo` converts its weights.
            photo = await asyncio.to_thread(inference.backbones.describe, PHOTO, "#/model")
            ref = ModelRef(id=None, name=PHOTO, revision=photo.facts.weights_sha256[:12])
            classify = partial(inference.features.classify, backbone=PHOTO)
            return _Chosen(ref, photo.classes or (), classify, Explained(backbone=PHOTO))
        head = await asyncio.to_thread(self._models.head, model, caller)
        await asyncio.to_thread(inference.require_backbone, head.backbone, head.backbone_sha256)
        return _Chosen(head.ref, head.classes, partial(_classify_trained, inference, head), Explained(head))

    def _stored(self, ids: Sequence[str], pointers: Sequence[str], caller: Caller) -> list[Upload]:
        uploads = []
        for image_id, pointer in zip(ids, pointers, strict=True):
            try:
                data = self._images.content(image_id, caller)
            except NotFound:
                raise Invalid.field(pointer, "There is no image with this id.", ErrorCode.IMAGE_NOT_FOUND) from None
            except FileLost as error:
                error.errors = (FieldError(pointer, error.detail, error.code),)
                raise
            uploads.append(Upload(data, pointer, image_id))
        return uploads

    def _load(self, upload: Upload) -> Image.Image:
        """Decode an image; called on preparation threads."""
        return self._decode(upload.data, max_bytes=self._limits.upload_bytes, max_pixels=self._limits.upload_pixels)


def _request_of(uploads: Sequence[Upload]) -> PictureRequest:
    return PictureRequest(is_large=any(is_large(upload.data) for upload in uploads))


async def _naming(upload: Upload, call: Awaitable[T]) -> T:
    """Await a result of one image; an error that the image causes gets the image's pointer."""
    try:
        return await call
    except (Invalid, PayloadTooLarge, UnsupportedImage) as error:
        error.errors = (FieldError(upload.pointer, error.detail, error.code),)
        raise


async def _all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Await all calls concurrently; when one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _features(inference: Inference, head: Head, load: LoadImage, *, owner: object, caller: str) -> np.ndarray:
    """Return an image's features by the backbone of a trained model, (D,)."""
    return await inference.features.of_image(
        load,
        backbone=head.backbone,
        weights_sha256=head.backbone_sha256,
        preprocessing=head.preprocessing,
        owner=owner,
        caller=caller,
    )


async def _classify_trained(
    inference: Inference, head: Head, load: LoadImage, *, owner: object, caller: str
) -> np.ndarray:
    features = await _features(inference, head, load, owner=owner, caller=caller)
    probabilities: np.ndarray = head.predict(features[None])[0]  # (K,)
    return probabilities


def label_warnings(labels: Sequence[str]) -> list[WarningRead]:
    """Return a warning if there is only one label, whose probability is always 1."""
    if len(labels) > 1:
        return []
    detail = "There is one label, and one label always has the probability 1.0."
    if "," in labels[0]:
        detail += " It has a comma: give each label by itself, in a form as a field of its own."
    return [WarningRead(code="single_label", detail=detail)]


def _texts(request: ClipScoreRequest) -> list[str]:
    if equal_names(request.labels):
        raise Invalid.field("#/labels", "The labels must all be different.", ErrorCode.DUPLICATE_LABELS)
    if request.template is None:
        return request.labels
    if request.template.count("{}") != 1:
        raise Invalid.field("#/template", "The template must contain {} exactly once.", ErrorCode.BAD_TEMPLATE)
    # A plain replace: format strings from a client are never interpreted.
    return [request.template.replace("{}", label) for label in request.labels]


def _top(probabilities: np.ndarray, classes: Sequence[str], top_k: int) -> list[Prediction]:
    best = np.argsort(-probabilities, kind="stable")[:top_k]
    return [Prediction(label=classes[i], index=int(i), probability=float(probabilities[i])) for i in best]
