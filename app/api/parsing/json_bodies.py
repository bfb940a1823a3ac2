"""Reads JSON bodies: limits them before parsing, and parses large ones outside the event loop.

`json.loads` holds the GIL until it returns, in any thread: 29 MB of `[],[],...` block the process for ten seconds. So
the numbers of bytes, values, members and escapes are limited first, by counting bytes, which is fast. `JsonRoute` does
this for every route with a JSON body; a route without a body never reads one. Bodies are read on the event loop; large
ones are parsed on a thread of the bodies' pool.
"""

import json
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from app.api.problems import invalid_of_validation
from app.api.serving.accepted_work import IS_CHARGED
from app.error_codes import ErrorCode
from app.errors import Malformed, PayloadTooLarge
from app.services.process.thread_pools import WorkPool

Model = TypeVar("Model", bound=BaseModel)
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

# Maximum bytes of a body. Most routes read a few fields; a recipe has at most 2 MB.
SMALL_BODY, PROMPT_BODY, RECIPE_BODY = 65_536, 262_144, 2_200_000
# A list of short prompts has 20 bytes per value, and at most one value in eight is an object's member.
_BYTES_PER_VALUE, _VALUES_PER_MEMBER = 16, 8
# Each escape slows the parser down. 30 MB of base64 in which every slash is escaped have 400,000.
_MAX_ESCAPES = 1_000_000
# Bodies up to this size are parsed and validated within two milliseconds, on the event loop.
_MAX_INLINE_BYTES = 16_384

_MAX_EXACT = 2**53

# A string, closed or not. Possessive, so that an unclosed string is scanned once and not again from each quote in it.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


@dataclass(frozen=True, slots=True)
class JsonBounds:
    """Maximum size of a body.

    Attributes:
        num_bytes: Maximum number of bytes.
        num_values: Maximum number of values at every depth: items of arrays and values of members.
        num_members: Maximum number of members of objects.
    """

    num_bytes: int
    num_values: int
    num_members: int

    @classmethod
    def of_bytes(cls, num_bytes: int) -> "JsonBounds":
        """Return the limits for bodies of up to `num_bytes` bytes."""
        num_values = num_bytes // _BYTES_PER_VALUE
        return cls(num_bytes, num_values, num_values // _VALUES_PER_MEMBER)


class JsonRoute(APIRoute):
    """A route whose JSON body this module reads instead of FastAPI."""

    def get_route_handler(self) -> Handler:
        """Return the route's handler, which receives the body parsed and validated."""
        handle, model, bounds = self.plain_handler(), self.body_model(), self.json_bounds()
        if model is None:
            return handle

        async def read_and_handle(request: Request) -> Response:
            setattr(request.state, IS_CHARGED, True)
            return await handle(await _read(request, model, bounds))

        return read_and_handle

    def plain_handler(self) -> Handler:
        """Return FastAPI's handler, which takes a request whose body has been read."""
        return super().get_route_handler()

    def body_model(self) -> type[BaseModel] | None:
        """Return the model of the body; None for a route without one."""
        model = getattr(getattr(self.body_field, "field_info", None), "annotation", None)
        return model if isinstance(model, type) and issubclass(model, BaseModel) else None

    def json_bounds(self) -> JsonBounds:
        """Return the limits of the body."""
        return JsonBounds.of_bytes(SMALL_BODY if self.max_body_size is None else self.max_body_size)


class ReadRequest(Request):
    """A request whose body has been read and parsed."""

    def __init__(self, request: Request, body: bytes, value: object = None) -> None:
        super().__init__(request.scope, request.receive)
        self._bytes = body
        self._value = value

    async def body(self) -> bytes:
        """Return the bytes of the body."""
        return self._bytes

    async def json(self) -> object:
        """Return the validated model of the body."""
        return self._value


async def _read(request: Request, model: type[BaseModel], bounds: JsonBounds) -> Request:
    body = await read_bytes(request, bounds.num_bytes)
    if not body or not _is_json(request):
        return ReadRequest(request, body)  # FastAPI refuses it
    return ReadRequest(request, body, await parse_json(request, body, model, bounds))


async def read_bytes(request: Request, max_bytes: int) -> bytes:
    """Read a body up to the limits of the route and of the node.

    Raises:
        PayloadTooLarge: The body is larger; the rest is not read.
    """
    max_bytes = min(max_bytes, request.app.state.settings.max_body_bytes)
    parts, num_bytes = [], 0
    async for part in request.stream():
        num_bytes += len(part)
        if num_bytes > max_bytes:
            raise PayloadTooLarge(f"The body of this request may have at most {max_bytes} bytes. Send a smaller one.")
        parts.append(part)
    return b"".join(parts)


async def parse_json(request: Request, body: bytes, model: type[Model], bounds: JsonBounds) -> Model:
    """Parse and validate a body; a large one on a thread of the bodies' pool.

    Raises:
        PayloadTooLarge: `too_many_values`: the body has more values than any request of this route.
        Malformed: The body is not JSON.
        Invalid: The body does not match the model.
        QueueFull: Too many large bodies are being parsed.
    """
    if len(body) <= _MAX_INLINE_BYTES:
        return _parsed(body, model, bounds)
    pool: WorkPool = request.app.state.services.pools.bodies
    return await pool.run(lambda: _parsed(body, model, bounds))


def load_json(body: bytes, bounds: JsonBounds) -> Any:
    """Return the value of a JSON body.

    Raises:
        PayloadTooLarge: `too_many_values`, or too many escapes.
        Malformed: The body is not JSON.
    """
    if not _is_within(body, bounds):
        _check_without_strings(body, bounds)
    if body.count(b"\\") > _MAX_ESCAPES:
        raise PayloadTooLarge("The body contains too many escaped characters. Send them unescaped.")
    try:
        return json.loads(body, parse_float=_number)
    except (ValueError, RecursionError):
        raise _malformed() from None


def _number(text: str) -> float:
    """Return a number with a fraction or an exponent: an integer if it is one, as JSON Schema counts `7.0`.

    Beyond 2^53 a float is not exact, and stays a float, which the integer fields refuse.
    """
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= _MAX_EXACT else value


def _is_within(body: bytes, bounds: JsonBounds) -> bool:
    """Count the bytes that begin a value or follow a name; in strings too, so the count is an upper bound."""
    num_values = body.count(b",") + body.count(b"[") + body.count(b"{")
    return num_values <= bounds.num_values and body.count(b":") <= bounds.num_members


def _check_without_strings(body: bytes, bounds: JsonBounds) -> None:
    """Count again without the strings, unless the body is too large or has too many strings for that.

    Raises:
        PayloadTooLarge: `too_many_values`.
        Malformed: The brackets do not match.
    """
    num_strings = (body.count(b'"') - body.count(b'\\"')) // 2
    if len(body) <= RECIPE_BODY and num_strings <= bounds.num_values + bounds.num_members:
        rest = _STRING.sub(b"", body)
        if _is_within(rest, bounds):
            return
        if rest.count(b"[") != rest.count(b"]") or rest.count(b"{") != rest.count(b"}"):
            raise _malformed()
    raise PayloadTooLarge(
        "The body contains more values than any valid request of this route.", code=ErrorCode.TOO_MANY_VALUES
    )


def _malformed() -> Malformed:
    return Malformed("The body is not valid JSON.", code=ErrorCode.MALFORMED_JSON)


def _parsed(body: bytes, model: type[Model], bounds: JsonBounds) -> Model:
    value = load_json(body, bounds)
    try:
        return model.model_validate(value, from_attributes=True)
    except ValidationError as error:
        raise invalid_of_validation(error, model) from None


def _is_json(request: Request) -> bool:
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    return media_type.startswith("application/") and (media_type == "application/json" or media_type.endswith("+json"))
