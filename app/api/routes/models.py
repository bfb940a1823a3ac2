"""Routes of trained models. They run on worker threads; import no training code."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api.deps import Cursor, Id, Limit, ServicesDep
from app.api.disconnects import unless_left
from app.api.json_bodies import JsonRoute
from app.api.openapi import BODY_STATUSES, accepted, problems
from app.api.responses import conditional
from app.api.submissions import SubmissionDep
from app.schemas.common import Page
from app.schemas.evaluations import EvaluationCreate, EvaluationRead, EvaluationSummary
from app.schemas.jobs import JobRead
from app.schemas.model_comparisons import MAX_COMPARED, ModelComparisonRead
from app.schemas.models import ModelRead, ModelSummary

router = APIRouter(tags=["training"], route_class=JsonRoute)

_WEIGHTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`fc.weight` (K, 512) and `fc.bias` (K,) as safetensors.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    206: {"description": "The requested range."},
    304: {"description": "Not modified: `If-None-Match` contains the current ETag."},
    **problems(404, 410, 416, 422, 503),
}


@router.get("/models", summary="List trained models", responses=problems(400, 422, 503))
def list_models(services: ServicesDep, limit: Limit = 20, cursor: Cursor = None) -> Page[ModelSummary]:
    """Return a page of models, newest first; the metrics of each class are only in `GET /models/{model_id}`."""
    return services.models.page(limit, cursor)


# Before `/models/{model_id}`, which this path matches too.
@router.get("/models/compare", summary="Compare trained models", responses=problems(422, 503))
async def compare_models(
    ids: Annotated[str, Query(max_length=1_000, description=f"Ids of 2 to {MAX_COMPARED} models, between commas.")],
    request: Request,
    services: ServicesDep,
) -> ModelComparisonRead:
    """Compare each two of the models on the images that all of them were evaluated on.

    The newest evaluation of each model counts on the dataset and split that all of them were evaluated on. Without
    common images the answer has no figures, and a warning.
    """
    return await unless_left(request, services.evaluations.compare(ids))


@router.get("/models/{model_id}", summary="Read a trained model", responses=problems(404, 503))
def get_model(model_id: Id, services: ServicesDep) -> ModelRead:
    """Return the classes, the metrics and the lineage of a model."""
    return services.models.read(model_id)


@router.get("/models/{model_id}/weights", summary="Download a model", response_class=Response, responses=_WEIGHTS)
def get_model_weights(
    model_id: Id,
    request: Request,
    services: ServicesDep,
    _format: Annotated[Literal["safetensors"], Query(alias="format")] = "safetensors",
) -> Response:
    """Return the weights of the head, for the layer `fc` of the backbone."""
    return conditional(request, services.models.weights(model_id))


@router.delete("/models/{model_id}", status_code=204, summary="Delete a trained model", responses=problems(404, 503))
def delete_model(model_id: Id, services: ServicesDep) -> None:
    """Delete the model with its file."""
    services.models.delete(model_id)


@router.post(
    "/models/{model_id}/evaluations",
    status_code=202,
    summary="Evaluate a trained model",
    responses=accepted("Accepted as a job; its `result` has the `evaluation_id`.", 404, *BODY_STATUSES, of="job"),
)
def create_evaluation(
    model_id: Id, body: EvaluationCreate, services: ServicesDep, response: Response, submission: SubmissionDep
) -> JobRead:
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
    responses=problems(400, 404, 422, 503),
)
def list_evaluations(
    model_id: Id, services: ServicesDep, limit: Limit = 20, cursor: Cursor = None
) -> Page[EvaluationSummary]:
    """Return a page of evaluations, newest first, that of the train job's own test split included."""
    return services.evaluations.page(model_id, limit, cursor)


@router.get(
    "/models/{model_id}/evaluations/{evaluation_id}",
    summary="Read an evaluation",
    responses=problems(404, 503),
)
def get_evaluation(model_id: Id, evaluation_id: Id, services: ServicesDep) -> EvaluationRead:
    """Return the metrics with all their tables, and the most confident mistakes."""
    return services.evaluations.read(model_id, evaluation_id)
