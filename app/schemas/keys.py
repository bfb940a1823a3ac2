"""API keys over HTTP: what `/keys` takes and answers. Only a creation answers a key. Imports no services; pure."""

from datetime import date
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from typing_extensions import TypeAliasType

from app.access.caller import Scope
from app.schemas.common import Page, Request, Response, UtcTime

# The greatest integer that JSON's readers agree on.
_MOST = 2**53 - 1

KeyState = TypeAliasType(
    "KeyState",
    Annotated[Literal["active", "expired", "revoked"], Field(description="Only `active` keys are accepted.")],
)
KeyScope = TypeAliasType(
    "KeyScope",
    Annotated[
        Literal["read", "generate", "datasets", "train", "admin"],
        Field(description="What a key allows; `admin` allows everything."),
    ],
)


class KeyLimits(Request):
    """The bounds of a key; null: the setting of each node."""

    requests_per_minute: Annotated[int, Field(strict=True, ge=1, le=100_000)] | None = Field(
        None, description="Requests in any minute, by each node."
    )
    concurrent_requests: Annotated[int, Field(strict=True, ge=1, le=100_000)] | None = Field(
        None, description="Requests that run at once, by each node."
    )
    concurrent_images: Annotated[int, Field(strict=True, ge=1, le=10_000)] | None = Field(
        None, description="Images that `POST /generate` draws at once, by each node."
    )
    pixel_steps_per_day: Annotated[int, Field(strict=True, ge=0, le=_MOST)] | None = Field(
        None, description="Images x steps x width x height that are accepted in a day (UTC), over all nodes."
    )
    stored_mb: Annotated[int, Field(strict=True, ge=0, le=_MOST)] | None = Field(
        None, description="Megabytes of images and models at which new work is refused, over all nodes."
    )


class KeyCreate(Request):
    """A key to create."""

    name: str = Field(
        strict=True,
        max_length=63,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="Unique among the keys that are not revoked.",
    )
    scopes: Annotated[list[KeyScope], Field(min_length=1, max_length=len(Scope))]
    expires_in_days: Annotated[int, Field(strict=True, ge=1, le=3_650)] | None = Field(
        None, description="Default: it does not expire."
    )
    limits: KeyLimits = Field(default_factory=KeyLimits)

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "alice", "scopes": ["read", "generate"], "expires_in_days": 90}]}
    )


class KeyChange(Request):
    """What of a key is changed."""

    limits: KeyLimits = Field(description="Replaces all its bounds.")


class KeyLimitsRead(Response):
    """The bounds of a key."""

    requests_per_minute: int | None
    concurrent_requests: int | None
    concurrent_images: int | None
    pixel_steps_per_day: int | None
    stored_mb: int | None


class KeyRead(Response):
    """A key, without the key itself, which the node does not have."""

    id: str
    name: str
    prefix: str = Field(description="The first characters of the key, by which a person recognizes it.")
    scopes: list[str]
    state: KeyState
    created_at: UtcTime
    expires_at: UtcTime | None
    revoked_at: UtcTime | None
    last_used_on: date | None = Field(description="The day in UTC.")
    limits: KeyLimitsRead = Field(description="Its own bounds; null: the setting of each node.")


class KeyUse(Response):
    """What a key uses of its quotas."""

    pixel_steps_today: int = Field(ge=0, description="Since midnight UTC; only counted where there is a quota.")
    stored_bytes: int = Field(ge=0, description="Of images and models that were created with it.")


class KeyDetail(KeyRead):
    """A key with its use."""

    applied_limits: KeyLimitsRead = Field(description="The bounds as this node applies them; null: none.")
    use: KeyUse


class KeyCreatedRead(KeyRead):
    """A key that was just created."""

    key: str = Field(description="The key. This answer alone has it.")


class KeyPage(Page[KeyRead]):
    """A page of keys, newest first."""
