"""JSON bodies, bounded before they are parsed, and parsed beside the event loop where they are large.

`json.loads` holds the interpreter until it is through, in whatever thread: 29 MB of `[],[],...` stop everybody for ten
seconds. So a body's bytes, values, members and escapes are bounded first, at the speed of memory. `JsonRoute` does this
for every route with a JSON body; a route without one never reads it.
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
from app.error_codes import ErrorCode
from app.errors import Malformed, PayloadTooLarge
from app.services.thread_pools import WorkPool

Model = TypeVar("Model", bound=BaseModel)
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

# Bytes of a body. Most routes read a few fields; a recipe has at most 2 MB.
SMALL_BODY, PROMPT_BODY, RECIPE_BODY = 65_536, 262_144, 2_200_000
# A list of short prompts has 20 bytes a value, and names one value in eight at the most.
_BYTES_PER_VALUE, _VALUES_PER_MEMBER = 16, 8
# An escape costs a step of its own. Base64 from writers that escape each slash has 400,000 in 30 MB.
_MAX_ESCAPES = 1_000_000
# Smaller bodies are parsed and validated within two milliseconds.
_PARSED_AT_ONCE = 16_384

# A string, closed or not. Possessive: one that never ends is passed over once, not again from each of its quotes.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


@dataclass(frozen=True, slots=True)
class JsonBounds:
    """How large a body may be.

    Attributes:
        num_bytes: Bytes.
        num_values: Values: what arrays hold and what members name, at every depth.
        num_members: Members of objects.
    """

    num_bytes: int
    num_values: int
    num_members: int

    @classmethod
    def of_bytes(cls, num_bytes: int) -> "JsonBounds":
        """Return the bounds of a body of so many bytes."""
        num_values = num_bytes // _BYTES_PER_VALUE
        return cls(num_bytes, num_values, num_values // _VALUES_PER_MEMBER)


class JsonRoute(APIRoute):
    """A route whose JSON body is read here, instead of by the framework on the event loop."""

    def get_route_handler(self) -> Handler:
        """Return the route's handler; it finds its body read, parsed and validated."""
        handle = super().get_route_handler()
        model = getattr(getattr(self.body_field, "field_info", None), "annotation", None)
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return handle
        bounds = JsonBounds.of_bytes(SMALL_BODY if self.max_body_size is None else self.max_body_size)

        async def read_and_handle(request: Request) -> Response:
            return await handle(await _read(request, model, bounds))

        return read_and_handle


class _ReadRequest(Request):
    """A request whose body has been read."""

    def __init__(self, request: Request, body: bytes, value: object = None) -> None:
        super().__init__(request.scope, request.receive)
        self._bytes = body
        self._value = value

    async def body(self) -> bytes:
        """Return the body as it came."""
        return self._bytes

    async def json(self) -> object:
        """Return the body's model."""
        return self._value


async def _read(request: Request, model: type[BaseModel], bounds: JsonBounds) -> Request:
    body = await read_bytes(request, bounds.num_bytes)
    if not body or not _is_json(request):
        return _ReadRequest(request, body)  # the framework refuses it
    return _ReadRequest(request, body, await parse_json(request, body, model, bounds))


async def read_bytes(request: Request, max_bytes: int) -> bytes:
    """Read a body up to the route's bound and the node's.

    Raises:
        PayloadTooLarge: It is larger; the rest is not read.
    """
    max_bytes = min(max_bytes, request.app.state.settings.max_body_bytes)
    parts, num_bytes = [], 0
    async for part in request.stream():
        num_bytes += len(part)
        if num_bytes > max_bytes:
            raise PayloadTooLarge(f"The body of this request may have at most {max_bytes} bytes.")
        parts.append(part)
    return b"".join(parts)


async def parse_json(request: Request, body: bytes, model: type[Model], bounds: JsonBounds) -> Model:
    """Parse and validate a body, beside the event loop if it is large.

    Raises:
        PayloadTooLarge: `too_many_values`: it holds more than any request of this route.
        Malformed: It is not JSON.
        Invalid: It does not fit the model.
        QueueFull: Too many large bodies are being read.
    """
    if len(body) <= _PARSED_AT_ONCE:
        return _parsed(body, model, bounds)
    pool: WorkPool = request.app.state.services.pools.bodies
    return await pool.run(lambda: _parsed(body, model, bounds))


def load_json(body: bytes, bounds: JsonBounds) -> Any:
    """Return the value of a body.

    Raises:
        PayloadTooLarge: `too_many_values`.
        Malformed: It is not JSON.
    """
    if not _is_within(body, bounds):
        _refuse_beyond(body, bounds)
    if body.count(b"\\") > _MAX_ESCAPES:
        raise PayloadTooLarge("The body holds too many escaped characters; send them as they are.")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _malformed() from None


def _is_within(body: bytes, bounds: JsonBounds) -> bool:
    """Count what may begin a value or follow a name; of a body with its strings, more than there is."""
    num_values = body.count(b",") + body.count(b"[") + body.count(b"{")
    return num_values <= bounds.num_values and body.count(b":") <= bounds.num_members


def _refuse_beyond(body: bytes, bounds: JsonBounds) -> None:
    """Count again without the strings, if the body is not too large for that and the strings not too many."""
    num_strings = (body.count(b'"') - body.count(b'\\"')) // 2
    if len(body) <= RECIPE_BODY and num_strings <= bounds.num_values + bounds.num_members:
        rest = _STRING.sub(b"", body)
        if _is_within(rest, bounds):
            return
        if rest.count(b"[") != rest.count(b"]") or rest.count(b"{") != rest.count(b"}"):
            raise _malformed()
    raise PayloadTooLarge("The body holds more values than any request of this route.", code=ErrorCode.TOO_MANY_VALUES)


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
