"""Draws for the surfaces through the service of `/generate`; the client that leaves frees its rows.

Runs on the event loop.
"""

import math
from collections.abc import Mapping
from typing import Any

from fastapi import Request

from app.access.caller import Caller
from app.api.compat.requests import SizeRange, naming
from app.api.deps import Services
from app.api.parsing.forms import validate
from app.api.serving.disconnects import unless_left
from app.metrics.node import NodeMetrics
from app.schemas.generations import GenerateRequest
from app.schemas.source_images import DEFAULT_STRENGTH
from app.services.generations.service import Generated
from app.services.generations.steps import OnStep


def models_of(services: Services) -> list[str]:
    """Return the names of the models that draw, the default one first.

    Raises:
        ModelNotReady: There is no pack.
    """
    inference = services.inference
    return [inference.pack.name, *(model.name for model in inference.drawing.listed if model.fault is None)]


def sides_of(services: Services, model: str | None = None) -> SizeRange:
    """Return the sides that a model draws; None is the default one.

    Raises:
        ModelNotReady: There is no pack.
    """
    sizes = services.inference.sizes.of(model)
    return SizeRange(sizes.native, sizes.min_side, sizes.max_side)


def native_request(values: Mapping[str, Any], names: Mapping[str, str]) -> GenerateRequest:
    """Return the request of `/generate` that values stand for; those that are None are left out.

    Raises:
        Invalid: A value is invalid; its fault has the client's name of the field.
    """
    with naming(names):
        return validate(GenerateRequest, {name: value for name, value in values.items() if value is not None})


def with_previews(request: GenerateRequest, num_previews: int) -> GenerateRequest:
    """Return the request with so many previews of each image, evenly spaced over its steps; 0: none."""
    if not num_previews:
        return request
    share = 1.0 if request.init_image is None else request.strength or DEFAULT_STRENGTH
    steps = max(1, int(request.num_inference_steps * share))
    return request.model_copy(update={"preview": math.ceil(steps / (num_previews + 1))})


async def draw(
    request: Request, services: Services, body: GenerateRequest, caller: Caller, names: Mapping[str, str]
) -> Generated:
    """Return the images of a request, unless its client leaves before.

    Raises:
        AppError: As `GenerationService.generate`; its faults have the client's names of the fields.
        ClientDisconnect: The client has left.
    """
    with naming(names):
        return await unless_left(request, drawing(request, services, body, caller))


async def drawing(
    request: Request, services: Services, body: GenerateRequest, caller: Caller, on_step: OnStep | None = None
) -> Generated:
    """Draw, and count the images; for callers that watch the client themselves."""
    generated = await services.generations.generate(body, caller, on_step=on_step)
    metrics: NodeMetrics = request.app.state.metrics
    metrics.http.add_images(len(generated.files))
    return generated
