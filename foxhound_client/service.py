"""Methods of the service itself: make and judge images, train and evaluate."""

from collections.abc import Sequence
from typing import Unpack

from foxhound_client.events import generation
from foxhound_client.models import (
    BackbonesRead,
    Capabilities,
    ClassificationRead,
    ClassificationsRead,
    ClipScoreRead,
    ClipScoresRead,
    EvaluateJob,
    GenerateJob,
    GenerationProgress,
    GenerationRead,
    Split,
    TrainJobRead,
)
from foxhound_client.once import json_request, path_of
from foxhound_client.operations import Group, Transport, iteration, operation
from foxhound_client.pictures import Picture, form_file
from foxhound_client.requests import GenerateImageRequest, GenerateRequest, TrainJobCreate
from foxhound_client.sending import fetch, key_header, send
from foxhound_client.steps import Flow, FormFile, Items, Request


class Service(Group[Transport]):
    """What a service does by itself; its objects have groups of their own."""

    @operation
    def generate(self, /, **body: Unpack[GenerateRequest]) -> Flow[GenerationRead]:
        """Make images and return where they are; `images[0].url` is a path of the service.

        The request is sent again only if it cannot have arrived. `submit` survives lost connections.
        """
        request = json_request("POST", "/generate", body, is_repeatable=False)
        return (yield from fetch(self._policy, request, GenerationRead))

    @operation
    def generate_image(self, /, **body: Unpack[GenerateImageRequest]) -> Flow[bytes]:
        """Make one image and return its bytes."""
        request = json_request("POST", "/generate/image", body, is_repeatable=False)
        return (yield from send(self._policy, request)).content

    @iteration
    def generate_events(self, /, **body: Unpack[GenerateRequest]) -> Items[GenerationProgress | GenerationRead]:
        """Make images: yield each step, and the generation last."""
        headers = {"Accept-Encoding": "identity"}
        yield from generation(self._policy, json_request("POST", "/generate/events", body, headers=headers))

    @operation
    def submit(self, /, *, idempotency_key: str | None = None, **body: Unpack[GenerateRequest]) -> Flow[GenerateJob]:
        """Make images in a job; `jobs.wait` returns when they are there."""
        headers = {"Prefer": "respond-async", **key_header(idempotency_key)}
        return (yield from fetch(self._policy, json_request("POST", "/generate", body, headers=headers), GenerateJob))

    @operation
    def image(self, image_id: str) -> Flow[bytes]:
        """Return the bytes of a stored image."""
        return (yield from send(self._policy, Request("GET", path_of("images", image_id)))).content

    @operation
    def clip_score(self, image: Picture, labels: Sequence[str], *, template: str | None = None) -> Flow[ClipScoreRead]:
        """Return how well each label describes an image, by CLIP.

        Args:
            image: A path, bytes or an opened file.
            labels: 1 to 256 labels.
            template: A text with `{}` for the label.
        """
        files = [form_file("image", image)]
        return (yield from fetch(self._policy, _scoring(files, labels, template), ClipScoreRead))

    @operation
    def clip_scores(
        self, images: Sequence[Picture], labels: Sequence[str], *, template: str | None = None
    ) -> Flow[ClipScoresRead]:
        """Return the same as `clip_score` for at most 32 images, in their order."""
        request = _scoring(_several(images), labels, template)
        return (yield from fetch(self._policy, request, ClipScoresRead))

    @operation
    def classify(
        self, image: Picture, *, model: str | None = None, top_k: int = 5, explain: bool = False
    ) -> Flow[ClassificationRead]:
        """Return the classes of an image by a classifier.

        Args:
            image: A path, bytes or an opened file.
            model: Name or id of a trained model, or `photo`; default: the classifier of the pack.
            top_k: Number of classes, >= 1.
            explain: Whether to add a picture of what the classifier looked at.
        """
        files = [form_file("image", image)]
        return (yield from fetch(self._policy, _classifying(files, model, top_k, explain), ClassificationRead))

    @operation
    def classify_all(
        self, images: Sequence[Picture], *, model: str | None = None, top_k: int = 5, explain: bool = False
    ) -> Flow[ClassificationsRead]:
        """Return the same as `classify` for at most 32 images, in their order."""
        request = _classifying(_several(images), model, top_k, explain)
        return (yield from fetch(self._policy, request, ClassificationsRead))

    @operation
    def train(self, /, *, idempotency_key: str | None = None, **body: Unpack[TrainJobCreate]) -> Flow[TrainJobRead]:
        """Train a classifier in a job; `jobs.wait` returns the job, whose `result.model_id` names the model."""
        request = json_request("POST", "/train-jobs", body, headers=key_header(idempotency_key))
        return (yield from fetch(self._policy, request, TrainJobRead))

    @operation
    def train_job(self, job_id: str) -> Flow[TrainJobRead]:
        """Return a train job with its epochs."""
        return (yield from fetch(self._policy, Request("GET", path_of("train-jobs", job_id)), TrainJobRead))

    @operation
    def evaluate(
        self, model_id: str, dataset_id: str, *, split: Split = "test", idempotency_key: str | None = None
    ) -> Flow[EvaluateJob]:
        """Evaluate a model on a dataset's split, in a job."""
        path, body = f"{path_of('models', model_id)}/evaluations", {"dataset_id": dataset_id, "split": split}
        request = json_request("POST", path, body, headers=key_header(idempotency_key))
        return (yield from fetch(self._policy, request, EvaluateJob))

    @operation
    def capabilities(self) -> Flow[Capabilities]:
        """Return the models, formats and limits of the node."""
        return (yield from fetch(self._policy, Request("GET", "/capabilities"), Capabilities))

    @operation
    def backbones(self) -> Flow[BackbonesRead]:
        """Return the backbones that classifiers can be trained on."""
        return (yield from fetch(self._policy, Request("GET", "/backbones"), BackbonesRead))


# Judging stores nothing, so these requests may be repeated. A form tells one image from a batch of one by its field.


def _several(images: Sequence[Picture]) -> list[FormFile]:
    return [form_file("images", image, number) for number, image in enumerate(images)]


def _scoring(files: list[FormFile], labels: Sequence[str], template: str | None) -> Request:
    form = {"labels": list(labels), **({"template": [template]} if template else {})}
    return Request("POST", "/clip-score/files", form=form, files=files)


def _classifying(files: list[FormFile], model: str | None, top_k: int, explain: bool) -> Request:
    form = {"top_k": [str(top_k)], "explain": [str(explain).lower()], **({"model": [model]} if model else {})}
    return Request("POST", "/classify/files", form=form, files=files)
