"""Routes of trained models. They run on worker threads; import no training code."""

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api.access.ids import CallerDep, ModelId
from app.api.deps import (
    CONDITIONAL,
    RANGED,
    CreatedAfter,
    Cursor,
    DatasetIdQuery,
    Id,
    Limit,
    NameQuery,
    ServicesDep,
)
from app.api.openapi import BODY_STATUSES, accepted, problems
from app.api.parsing.json_bodies import JsonRoute
from app.api.responses import conditional, not_modified
from app.api.serving.disconnects import unless_left
from app.api.submissions import SubmissionDep
from app.schemas.evaluations import EvaluationCreate, EvaluationPage, EvaluationRead
from app.schemas.jobs import EvaluateJob
from app.schemas.model_comparisons import MAX_COMPARED, ModelComparisonRead
from app.schemas.models import ExportFormat, ModelPage, ModelRead, WeightsFormat
from app.schemas.response_docs import UNCHANGED, file, headers

router = APIRouter(tags=["training"], route_class=JsonRoute)

_WEIGHTS = file(
    "`fc.weight` (K, D) and `fc.bias` (K,) as safetensors: K classes, and D features of the backbone (512 for "
    "ResNet18), or of all its backbones together.",
    (),
    *(404, 410, 416, 422, 503),
)
_EXPORT = file("The file; `format=bundle` is a zip.", ["application/zip"], *(404, 409, 410, 416, 422, 503, 507))
_MARKDOWN = "text/markdown"
_CARD: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Markdown with a YAML header.",
        "content": {_MARKDOWN: {"schema": {"type": "string"}}},
        "headers": headers("ETag", "Cache-Control"),
    },
    304: UNCHANGED,
    **problems(404, 410, 503),
}
# Other texts get a fault of their own, so the form is told by the schema alone.
_ComparedIds = Annotated[
    str,
    Query(
        max_length=1_000,
        description=f"Different ids of 2 to {MAX_COMPARED} models, between commas.",
        json_schema_extra={"pattern": f"^[A-Za-z0-9-]+(,[A-Za-z0-9-]+){{1,{MAX_COMPARED - 1}}}$"},
    ),
]


@router.get(
    "/models",
    summary="List trained models",
    response_description="A page of models.",
    responses=problems(400, 422, 503),
)
def list_models(
    services: ServicesDep,
    caller: CallerDep,
    limit: Limit = 20,
    cursor: Cursor = None,
    name: NameQuery = None,
    dataset_id: DatasetIdQuery = None,
    created_after: CreatedAfter = None,
) -> ModelPage:
    """Return a page of models, newest first, of those that match.

    The metrics of each class and the lineage are only in `GET /models/{model_id}`.
    """
    return services.models.page(limit, cursor, caller, name=name, dataset_id=dataset_id, created_after=created_after)


# Before `/models/{model_id}`, which this path matches too.
@router.get(
    "/models/compare",
    summary="Compare trained models",
    response_description="The comparison.",
    responses=problems(422, 503),
)
async def compare_models(
    ids: _ComparedIds,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
) -> ModelComparisonRead:
    """Compare each two of the models on the images that all of them were evaluated on.

    The newest evaluation of each model counts on the dataset and split that all of them were evaluated on. Without
    common images the answer has no figures, and a warning.
    """
    return await unless_left(request, services.evaluations.compare(ids, caller))


@router.get(
    "/models/{model_id}",
    summary="Read a trained model",
    response_description="The model.",
    responses=problems(404, 503),
)
def get_model(model_id: ModelId, services: ServicesDep) -> ModelRead:
    """Return the classes, the metrics and the lineage of a model."""
    return services.models.read(model_id)


@router.get(
    "/models/{model_id}/weights",
    summary="Download a model",
    response_class=Response,
    responses=_WEIGHTS,
    dependencies=[CONDITIONAL, RANGED],
)
def get_model_weights(
    model_id: ModelId,
    request: Request,
    services: ServicesDep,
    _format: Annotated[WeightsFormat, Query(alias="format")] = "safetensors",
) -> Response:
    """Return the weights of the head, which works on the features of the backbone; `export` has both as one file."""
    return conditional(request, services.models.weights(model_id))


@router.get(
    "/models/{model_id}/export",
    summary="Export a model",
    response_class=Response,
    responses=_EXPORT,
    dependencies=[CONDITIONAL, RANGED],
)
async def export_model(
    model_id: ModelId,
    request: Request,
    services: ServicesDep,
    export_format: Annotated[ExportFormat, Query(alias="format")],
) -> Response:
    """Return backbone and head as one file that works without Foxhound.

    `onnx`: `pixels` (N, 3, H, W) to `probabilities` (N, K), compared with the model on 32 pictures before it is
    offered; preprocessing and labels are in its metadata. `safetensors`: all tensors, with the same facts. `bundle`: a
    zip with weights, preprocessing, labels, a script of a few lines and the model card.

    A file of a model on several backbones has all of them: the graph has an input `pixels.NAME` for each, by its own
    preprocessing, and the tensors are `backbones.NAME.*`.

    The first request makes the file, which takes a minute or two for `onnx`; later ones are answered at once. Needs
    the backbones that the model was trained on.
    """
    stored = await unless_left(request, services.model_exports.export(model_id, export_format))
    return conditional(request, stored, cache_control="private, no-cache")


@router.get(
    "/models/{model_id}/card",
    summary="Read a model's card",
    response_class=Response,
    responses=_CARD,
    dependencies=[CONDITIONAL],
)
def get_model_card(model_id: ModelId, request: Request, services: ServicesDep) -> Response:
    """Return the model card: results with intervals, classes, input, lineage and licence, for a model hub."""
    body = services.model_exports.card(model_id).encode()
    headers = {
        "ETag": f'"{hashlib.sha256(body).hexdigest()}"',
        "Cache-Control": "private, no-cache",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    return not_modified(request, headers) or Response(body, headers=headers, media_type=_MARKDOWN)


@router.delete(
    "/models/{model_id}",
    status_code=204,
    summary="Delete a trained model",
    response_description="It is deleted.",
    responses=problems(404, 503),
)
def delete_model(model_id: ModelId, services: ServicesDep) -> None:
    """Delete the model with its file."""
    services.models.delete(model_id)


@router.post(
    "/models/{model_id}/evaluations",
    status_code=202,
    summary="Evaluate a trained model",
    responses=accepted("Accepted as a job; its `result` has the `evaluation_id`.", 404, *BODY_STATUSES),
)
def create_evaluation(
    model_id: ModelId, body: EvaluationCreate, services: ServicesDep, response: Response, submission: SubmissionDep
) -> EvaluateJob:
    """Evaluate the model on a split of any dataset whose classes it knows.

    Classes are matched by name; the dataset need not have all of the model's. The node needs the backbone that the
    model was trained on.
    """
    job = services.evaluations.create(model_id, body, submission)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@router.get(
    "/models/{model_id}/evaluations",
    summary="List a model's evaluations",
    response_description="A page of evaluations.",
    responses=problems(400, 404, 422, 503),
)
def list_evaluations(
    model_id: ModelId, services: ServicesDep, limit: Limit = 20, cursor: Cursor = None
) -> EvaluationPage:
    """Return a page of evaluations, newest first, that of the train job's own test split included."""
    return services.evaluations.page(model_id, limit, cursor)


@router.get(
    "/models/{model_id}/evaluations/{evaluation_id}",
    summary="Read an evaluation",
    response_description="The evaluation.",
    responses=problems(404, 503),
)
def get_evaluation(model_id: ModelId, evaluation_id: Id, services: ServicesDep) -> EvaluationRead:
    """Return the metrics with all their tables, and the most confident mistakes."""
    return services.evaluations.read(model_id, evaluation_id)
