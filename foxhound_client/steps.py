"""What a method of the client asks its transport for, one step after another; no step does anything by itself.

A flow is a generator: it yields steps, receives the reply to each and returns a result. The same flow runs blocking and
asynchronously, because only `transports.py` opens connections and sleeps.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx

Result = TypeVar("Result")
Item = TypeVar("Item")

# A part of a form: its name, then file name, bytes and type.
FormFile = tuple[str, tuple[str, bytes, str]]


@dataclass(frozen=True)
class Request:
    """An HTTP request.

    Attributes:
        method: The method.
        path: The path behind the service's URL.
        query: Query parameters.
        headers: Headers.
        content: The body, unless there is a form.
        form: Fields of a form, each with its values.
        files: Files of a form.
        is_repeatable: Whether the request may be sent again after an unknown outcome.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    form: Mapping[str, Sequence[str]] | None = None
    files: Sequence[FormFile] = ()
    is_repeatable: bool = True


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; `content` is empty while a successful answer is streamed."""

    status: int
    reason: str
    headers: httpx.Headers
    content: bytes


@dataclass(frozen=True)
class Send:
    """Send a request and read the whole answer; the reply is an `Answer`."""

    request: Request


@dataclass(frozen=True)
class Open:
    """Send a request and read the answer's head, and its body if it is an error; the reply is an `Answer`."""

    request: Request


@dataclass(frozen=True)
class Read:
    """Read the next bytes of the opened answer; the reply is empty at its end."""


@dataclass(frozen=True)
class Close:
    """Close the opened answer."""


@dataclass(frozen=True)
class Sleep:
    """Wait.

    Attributes:
        seconds: How long.
    """

    seconds: float


@dataclass(frozen=True)
class Emit(Generic[Item]):
    """Hand an item to the caller, who iterates over the flow.

    Attributes:
        item: The item.
    """

    item: Item


Step = Send | Open | Read | Close | Sleep | Emit[Any]
Flow = Generator[Step, Any, Result]
# A flow that the caller iterates over.
Items = Generator[Send | Open | Read | Close | Sleep | Emit[Item], Any, None]
