"""`/v1/models`: the models that draw, and the pack's CLIP model. Runs on worker threads."""

from typing import Annotated

from fastapi import APIRouter, Path

from app.api.compat.drawing import models_of
from app.api.compat.openai.schemas import ModelList, ModelObject
from app.api.deps import Services, ServicesDep
from app.api.openapi import operation_id
from app.errors import NotFound

router = APIRouter(prefix="/v1", tags=["openai"], generate_unique_id_function=operation_id)

CLIP_ID = "clip"


@router.get("/models", summary="List the models", response_description="The models.")
def list_openai_models(services: ServicesDep) -> ModelList:
    """Return the models that draw, of which the default one has the pack's name, and `clip`, which embeds."""
    return ModelList(data=[ModelObject(id=name) for name in _ids(services)])


@router.get("/models/{model_id}", summary="Read a model", response_description="The model.")
def get_openai_model(
    model_id: Annotated[str, Path(max_length=256, description="`id` of a model.")], services: ServicesDep
) -> ModelObject:
    """Return one of the models."""
    if model_id not in _ids(services):
        raise NotFound("There is no such model. GET /v1/models lists all of them.")
    return ModelObject(id=model_id)


def _ids(services: Services) -> list[str]:
    return [*models_of(services), CLIP_ID]
