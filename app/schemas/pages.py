"""Answers about the service and its contract: what `/` says, and what the page of an error code says. Pure."""

from pydantic import Field

from app.error_codes import ErrorCode
from app.schemas.common import Response


class ServiceLinks(Response):
    """Paths of this node."""

    documentation: str = Field(description="Every route, with a form to try it.")
    openapi: str = Field(description="The contract, as OpenAPI 3.1.")
    errors: str = Field(description="Every error code.")
    capabilities: str = Field(description="Models, device and limits of this node.")
    ready: str = Field(description="Whether the node can work.")


class ServiceRead(Response):
    """What this service is."""

    name: str
    version: str
    description: str
    links: ServiceLinks


class ErrorCodeRead(Response):
    """What an error code means."""

    code: ErrorCode
    statuses: str = Field(description="The HTTP statuses of answers with the code, between commas.")
    meaning: str
    url: str = Field(description="Path of its page, as in `type` of a problem.")


class ErrorCodesRead(Response):
    """Every error code."""

    items: list[ErrorCodeRead]
