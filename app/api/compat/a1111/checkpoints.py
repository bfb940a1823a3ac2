"""Checkpoints as clients of the web UI name them: in each request, or as an option that stays.

The web UI has one option for all clients; here each caller has its own, in memory. Used by routes, on any thread.
"""

from collections import OrderedDict
from typing import Protocol

from fastapi import Request

from app.access.caller import Caller
from app.api.compat.a1111.schemas import Txt2ImgBody
from app.api.compat.drawing import models_of
from app.api.deps import Services
from app.error_codes import ErrorCode
from app.errors import Invalid

# Callers whose choice is kept; that of the one who chose longest ago is forgotten first.
MAX_CALLERS = 1_000


class _Pack(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...


class Checkpoints:
    """The models that callers have chosen beside the default one."""

    def __init__(self) -> None:
        """Start without any."""
        self._chosen: OrderedDict[str, str] = OrderedDict()

    def choose(self, caller: str, model: str | None) -> None:
        """Keep a caller's choice; None is the default model."""
        self._chosen.pop(caller, None)
        if model is not None:
            self._chosen[caller] = model
        if len(self._chosen) > MAX_CALLERS:
            self._chosen.popitem(last=False)

    def of(self, caller: str) -> str | None:
        """Return a caller's choice."""
        return self._chosen.get(caller)


def checkpoints_of(request: Request) -> Checkpoints:
    """Return those of the application."""
    found: Checkpoints = request.app.state.checkpoints
    return found


def requested_checkpoint(request: Request, services: Services, body: Txt2ImgBody, caller: Caller) -> str | None:
    """Return the model of a request, or else of its caller; None is the default one.

    Raises:
        Invalid: The node has no such model.
    """
    asked = body.override_settings.sd_model_checkpoint if body.override_settings else None
    if asked is None:
        return checkpoints_of(request).of(caller.id)
    return checkpoint_named(services, asked, "#/override_settings/sd_model_checkpoint")


def checkpoint_named(services: Services, word: str, pointer: str) -> str | None:
    """Return the model of a name or a title; None is the default one.

    Raises:
        Invalid: The node has no such model.
    """
    names = models_of(services)
    if word in (names[0], title_of(services.inference.pack)):
        return None
    if word not in names:
        detail = "This node has no such checkpoint. GET /sdapi/v1/sd-models lists what it has."
        raise Invalid.field(pointer, detail, ErrorCode.MODEL_NOT_FOUND)
    return word


def title_of(pack: _Pack) -> str:
    """Return the title of the loaded pack."""
    return f"{pack.name} [{pack.revision[:10]}]"
