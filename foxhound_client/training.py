"""Trains a model once, however often the same program runs."""

from typing import Any

from foxhound_client.downloads import OnProgress
from foxhound_client.errors import FoxhoundError, NotFound
from foxhound_client.events import wait
from foxhound_client.models import DatasetRead, ModelRead, TrainJobRead
from foxhound_client.once import MAX_KEYS, json_request, key_of, path_of
from foxhound_client.sending import Policy, fetch
from foxhound_client.steps import Flow, Request


def ensure(policy: Policy, body: Any, idempotency_key: str | None, on_progress: OnProgress | None) -> Flow[ModelRead]:
    """Train a model unless the same request has trained it already; wait until it is there.

    Args:
        policy: How long to retry.
        body: The body of `POST /train-jobs`.
        idempotency_key: The key; None: a hash of the request.
        on_progress: Called with what is done, the total, and their unit.

    Raises:
        FoxhoundError: The request is invalid, or another dataset or model has its name.
        JobFailed: The job failed or was cancelled.
    """
    keys = [idempotency_key] if idempotency_key else [key_of(policy.url, body, turn) for turn in range(MAX_KEYS)]
    for key in keys:
        try:
            request = json_request("POST", "/train-jobs", body, headers={"Idempotency-Key": key})
            job: TrainJobRead = yield from fetch(policy, request, TrainJobRead)
        except FoxhoundError as refused:
            model = yield from _trained_before(policy, body, refused)
            if model is None:
                raise
            return model
        try:
            yield from wait(policy, path_of("jobs", job.id), on_progress)
            job = yield from fetch(policy, Request("GET", path_of("train-jobs", job.id)), TrainJobRead)
            return (yield from fetch(policy, Request("GET", path_of("models", str(job.model_id))), ModelRead))
        except NotFound:  # the model has been deleted since
            continue
    raise FoxhoundError("The model trained under this key has been deleted. Give another idempotency key.")


def _trained_before(policy: Policy, body: Any, refused: FoxhoundError) -> Flow[ModelRead | None]:
    """Return the model of the request's name if it was trained on the request's dataset; None for other refusals."""
    if refused.code not in ("model_name_taken", "dataset_name_taken"):
        return None
    try:
        model: ModelRead = yield from fetch(policy, Request("GET", path_of("models", str(body.get("name")))), ModelRead)
        dataset: DatasetRead = yield from fetch(
            policy, Request("GET", path_of("datasets", model.dataset_id)), DatasetRead
        )
    except NotFound:
        return None
    wanted = body.get("dataset_id") or body["dataset"].get("name")
    return model if wanted in (dataset.id, dataset.name) else None
