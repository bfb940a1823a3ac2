"""`GET /hf/health` and `/hf/info`, of the node or of a task. Run on worker threads."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from app import __version__
from app.api.compat.huggingface.schemas import EndpointInfo
from app.api.deps import ServicesDep
from app.api.openapi import operation_id
from app.errors import ModelNotReady, NotFound

router = APIRouter(prefix="/hf", tags=["huggingface"], generate_unique_id_function=operation_id)

_TASKS = ("text-to-image", "image-classification", "zero-shot-image-classification")


def _known(task: Annotated[str, Path(max_length=64, description="The URL's last part.")]) -> None:
    if task not in _TASKS:
        raise NotFound("There is nothing at this path.")


@router.get("/health", summary="Check that the node is ready", response_description="It is.")
def get_hf_health(services: ServicesDep) -> EndpointInfo:
    """Return 200 if every model is loaded, else 503."""
    if services.status.missing():
        raise ModelNotReady("The node is not ready. /readyz has the reason.", retry_after_s=2)
    return get_hf_info(services)


@router.get("/info", summary="Describe the models", response_description="The loaded pack.")
def get_hf_info(services: ServicesDep) -> EndpointInfo:
    """Return which models answer."""
    pack = services.inference.pack
    return EndpointInfo(
        model_id=pack.name,
        model_sha=pack.revision,
        model_device_type=services.inference.runtime.device,
        version=__version__,
    )


@router.get(
    "/{task}/health",
    summary="Check that the node is ready for a task",
    response_description="It is.",
    dependencies=[Depends(_known)],
)
def get_hf_task_health(services: ServicesDep) -> EndpointInfo:
    """Return the same as `/hf/health`: clients append it to the URL of a task."""
    return get_hf_health(services)


@router.get(
    "/{task}/info",
    summary="Describe the models of a task",
    response_description="The loaded pack.",
    dependencies=[Depends(_known)],
)
def get_hf_task_info(services: ServicesDep) -> EndpointInfo:
    """Return the same as `/hf/info`: clients append it to the URL of a task."""
    return get_hf_info(services)
