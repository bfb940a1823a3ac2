"""Routes of API keys, for callers with the scope `admin`. They run on worker threads; import no SQL."""

from fastapi import APIRouter, Response

from app.api.access.ids import CallerDep
from app.api.deps import Cursor, IdOrName, Limit, ServicesDep
from app.api.openapi import BODY_STATUSES, problems
from app.api.parsing.json_bodies import JsonRoute
from app.schemas.keys import KeyChange, KeyCreate, KeyCreatedRead, KeyDetail, KeyPage
from app.schemas.response_docs import headers

router = APIRouter(prefix="/keys", tags=["keys"], route_class=JsonRoute)


@router.get("", summary="List API keys", response_description="A page of keys.", responses=problems(400, 422, 503))
def list_keys(services: ServicesDep, limit: Limit = 20, cursor: Cursor = None) -> KeyPage:
    """Return a page of all keys, newest first, revoked and expired ones too; no answer has a key itself."""
    return services.keys.page(limit, cursor)


@router.post(
    "",
    status_code=201,
    summary="Create an API key",
    responses={
        201: {"description": "The key, this once.", "headers": headers("Location", "Cache-Control")},
        **problems(400, 403, 409, *BODY_STATUSES, 422, 503),
    },
)
def create_key(body: KeyCreate, services: ServicesDep, caller: CallerDep, response: Response) -> KeyCreatedRead:
    """Create a key and return it; it cannot be read again.

    The caller needs a key: the first one of a node is created on its machine, by `foxhound keys create`.
    """
    created = services.keys.create(body, caller)
    response.headers["Location"] = f"/keys/{created.id}"
    response.headers["Cache-Control"] = "no-store"
    return created


@router.get("/{key_id}", summary="Read an API key", response_description="The key.", responses=problems(404, 503))
def get_key(key_id: IdOrName, services: ServicesDep) -> KeyDetail:
    """Return a key by its id, or an unrevoked one by its name, with its bounds and what it uses of them."""
    return services.keys.read(key_id)


@router.patch(
    "/{key_id}",
    summary="Change the bounds of an API key",
    response_description="The key.",
    responses=problems(400, 404, *BODY_STATUSES, 422, 503),
)
def change_key(key_id: IdOrName, body: KeyChange, services: ServicesDep, caller: CallerDep) -> KeyDetail:
    """Replace all bounds of a key; nodes apply them within 5 seconds."""
    return services.keys.limit(key_id, body.limits, caller)


@router.delete(
    "/{key_id}",
    status_code=204,
    summary="Revoke an API key",
    response_description="It is revoked.",
    responses=problems(404, 409, 503),
)
def revoke_key(key_id: IdOrName, services: ServicesDep, caller: CallerDep) -> None:
    """Revoke a key; nodes refuse it within 5 seconds, and requests that run are completed.

    The last usable key with the scope `admin` is revoked by the command `foxhound keys revoke` alone.
    """
    services.keys.revoke(key_id, caller)
