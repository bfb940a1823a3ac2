"""Routes of trained models. They run on worker threads; import no training code."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api.deps import Cursor, Id, Limit, ServicesDep
from app.api.json_bodies import JsonRoute
from app.api.openapi import problems
from app.api.responses import conditional
from app.schemas.common import Page
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
