"""Methods for trained models and their evaluations."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Unpack

from foxhound_client import once
from foxhound_client.downloads import OnProgress, download
from foxhound_client.models import (
    EvaluationPage,
    EvaluationRead,
    EvaluationSummary,
    ModelComparisonRead,
    ModelPage,
    ModelRead,
    ModelSummary,
)
from foxhound_client.once import path_of
from foxhound_client.operations import Group, Transport, iteration, operation
from foxhound_client.requests import TrainJobCreate
from foxhound_client.sending import fetch, send
from foxhound_client.steps import Emit, Flow, Items, Request
from foxhound_client.training import ensure

Target = str | os.PathLike[str]


class Models(Group[Transport]):
    """Trained models of the service."""

    @operation
    def ensure(
        self,
        /,
        *,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
        **body: Unpack[TrainJobCreate],
    ) -> Flow[ModelRead]:
        """Train a model and wait for it; run again, return the model that the same request has trained, or wait on.

        The service keeps the key for a day. After that, a model of the name `name` counts as the same if it was
        trained on the same dataset.

        Args:
            idempotency_key: Default: a hash of the request.
            on_progress: Called with what is done, the total, and their unit.
            **body: The members of `TrainJobCreate`.

        Raises:
            JobFailed: The job failed or was cancelled.
        """
        return (yield from ensure(self._policy, body, idempotency_key, on_progress))

    @operation
    def get(self, model_id: str) -> Flow[ModelRead]:
        """Return a model by its id."""
        return (yield from fetch(self._policy, Request("GET", path_of("models", model_id)), ModelRead))

    @operation
    def find(self, id_or_name: str) -> Flow[ModelRead]:
        """Return a model by its id or name."""
        model: ModelRead = yield from once.find(self._policy, "models", id_or_name, ModelRead, ModelPage)
        return model

    @iteration
    def list(self) -> Items[ModelSummary]:
        """Yield every model, newest first."""
        query = {"limit": str(once.PAGE_SIZE)}
        while True:
            page = yield from fetch(self._policy, Request("GET", "/models", query=query), ModelPage)
            for model in page.items:
                yield Emit(model)
            if not page.next_cursor:
                return
            query["cursor"] = page.next_cursor

    @operation
    def compare(self, model_ids: Sequence[str]) -> Flow[ModelComparisonRead]:
        """Compare models that were tested on the same images."""
        request = Request("GET", "/models/compare", query={"ids": ",".join(model_ids)})
        return (yield from fetch(self._policy, request, ModelComparisonRead))

    @operation
    def weights(
        self,
        model_id: str,
        target: Target,
        *,
        format: Literal["safetensors"] = "safetensors",
        only_if_changed: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Flow[Path]:
        """Download what was trained: the weights without the backbone; arguments as of `datasets.archive`."""
        path, query = f"{path_of('models', model_id)}/weights", {"format": format}
        return (yield from download(self._policy, path, target, on_progress, query, only_if_changed=only_if_changed))

    @operation
    def export(
        self,
        model_id: str,
        target: Target,
        *,
        format: Literal["onnx", "safetensors", "bundle"] = "bundle",
        only_if_changed: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Flow[Path]:
        """Download a whole classifier, a zip file that runs without the service."""
        path, query = f"{path_of('models', model_id)}/export", {"format": format}
        return (yield from download(self._policy, path, target, on_progress, query, only_if_changed=only_if_changed))

    @operation
    def card(self, model_id: str) -> Flow[str]:
        """Return the model's card, in Markdown."""
        answer = yield from send(self._policy, Request("GET", f"{path_of('models', model_id)}/card"))
        return answer.content.decode()

    @iteration
    def evaluations(self, model_id: str) -> Items[EvaluationSummary]:
        """Yield the evaluations of a model, newest first."""
        path = f"{path_of('models', model_id)}/evaluations"
        query = {"limit": str(once.PAGE_SIZE)}
        while True:
            page = yield from fetch(self._policy, Request("GET", path, query=query), EvaluationPage)
            for evaluation in page.items:
                yield Emit(evaluation)
            if not page.next_cursor:
                return
            query["cursor"] = page.next_cursor

    @operation
    def evaluation(self, model_id: str, evaluation_id: str) -> Flow[EvaluationRead]:
        """Return an evaluation of a model, with its figures."""
        path = f"{path_of('models', model_id)}{path_of('evaluations', evaluation_id)}"
        return (yield from fetch(self._policy, Request("GET", path), EvaluationRead))

    @operation
    def delete(self, model_id: str) -> Flow[None]:
        """Delete a model."""
        yield from send(self._policy, Request("DELETE", path_of("models", model_id)))
