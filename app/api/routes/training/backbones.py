"""The route of the node's backbones. It runs on worker threads; imports no engine."""

from fastapi import APIRouter

from app.api.deps import ServicesDep
from app.api.openapi import problems
from app.schemas.backbones import BackbonesRead

router = APIRouter(tags=["training"])


@router.get("/backbones", summary="List backbones", response_description="The backbones.", responses=problems(400))
def list_backbones(services: ServicesDep) -> BackbonesRead:
    """Return every backbone that this node can train on, with its state, sizes, speed and preprocessing."""
    return services.status.backbones()
