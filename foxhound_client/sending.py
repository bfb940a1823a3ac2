"""Sends one request until it is answered: what is retried, for how long, and when to give up.

A request is sent again if it cannot have had an effect (no connection, 429, 503) or if sending it twice has the effect
of sending it once. A service that has never answered is given up after `first_answer_s`: its URL is probably wrong.
"""

import functools
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, overload

import httpx
from pydantic import TypeAdapter, ValidationError

from foxhound_client.errors import FoxhoundError, Unreachable, of_transport, readable, refusal
from foxhound_client.steps import Answer, Flow, Request, Send, Sleep

T = TypeVar("T")

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 15.0
# A node that restarts behind a proxy; the first two are also answered by a full or starting node itself.
_TRY_AGAIN = (429, 503, 502, 504)
_NOTHING_DONE = (429, 503)


@dataclass
class Policy:
    """How long a client retries.

    Attributes:
        url: URL of the service, for messages.
        retry_for_s: Seconds to retry without an answer, >= 0.
        first_answer_s: The same until the service has answered for the first time, >= 0.
        on_retry: Called with the reason before each wait.
        has_answered: Whether the service has answered.
    """

    url: str
    retry_for_s: float = 120.0
    first_answer_s: float = 2.0
    on_retry: Callable[[str], None] = field(default=lambda _: None)
    has_answered: bool = False

    def delays(self) -> "Delays":
        """Return new delays, for one operation."""
        return Delays(self.retry_for_s)


class Delays:
    """Delays between tries: 0.5 s, doubled up to 15 s, until the retry time is spent; a success resets both."""

    def __init__(self, retry_for_s: float) -> None:
        """Allow `retry_for_s` >= 0 seconds without a success."""
        self._retry_for_s = retry_for_s
        self.reset()

    def reset(self) -> None:
        """Start again with the first delay and the full retry time, after a success."""
        self._spent_s = 0.0
        self._next_s = FIRST_DELAY_S

    def limit(self, retry_for_s: float) -> None:
        """Change the retry time."""
        self._retry_for_s = retry_for_s

    def next(self, at_least_s: float = 0.0) -> float | None:
        """Return the seconds to wait before the next try; None if the retry time does not suffice.

        Args:
            at_least_s: `Retry-After` of the service, in seconds.
        """
        delay_s = max(self._next_s, at_least_s)
        if self._spent_s + delay_s > self._retry_for_s:
            return None
        self._spent_s += delay_s
        self._next_s = min(2 * self._next_s, LONGEST_DELAY_S)
        return delay_s


def send(policy: Policy, request: Request) -> Flow[Answer]:
    """Send a request until it is answered; return a successful answer, or 304 to a conditional request.

    Raises:
        FoxhoundError: The service answered with a problem, or not at all.
    """
    delays = policy.delays()
    tries = 0
    while True:
        tries += 1
        retry_after_s = 0.0
        try:
            answer: Answer = yield Send(request)
        except httpx.TransportError as error:
            failure: FoxhoundError = unreachable(policy, error)
            is_over = not (request.is_repeatable or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout))
            delays.limit(policy.retry_for_s if policy.has_answered else policy.first_answer_s)
        else:
            policy.has_answered = True
            delays.limit(policy.retry_for_s)
            if answer.status < 300 or answer.status == 304:
                return answer
            if answer.status == 404 and request.method == "DELETE" and tries > 1:
                return replace(answer, status=204)  # an earlier try has deleted it
            failure = refusal(answer.status, answer.reason, answer.content)
            is_over = answer.status not in (_TRY_AGAIN if request.is_repeatable else _NOTHING_DONE)
            retry_after_s = seconds(answer.headers.get("retry-after", ""))
        delay_s = None if is_over else delays.next(retry_after_s)
        if delay_s is None:
            raise failure
        policy.on_retry(f"{failure} Trying again in {delay_s:g} s.")
        yield Sleep(delay_s)


def unreachable(policy: Policy, error: httpx.TransportError) -> Unreachable:
    """Return the error for a failed connection."""
    message = f"No answer from {policy.url}: {of_transport(error)}."
    if not policy.has_answered:
        message += " See whether the service runs and whether this is its URL."
    return Unreachable(message, has_answered=policy.has_answered)


@overload
def fetch(policy: Policy, request: Request, kind: type[T]) -> Flow[T]: ...
@overload
def fetch(policy: Policy, request: Request, kind: object) -> Flow[Any]: ...
def fetch(policy: Policy, request: Request, kind: Any) -> Flow[Any]:
    """Send a request and return its answer as an object of a model.

    Args:
        policy: How long to retry.
        request: The request.
        kind: The model or union of models.

    Raises:
        FoxhoundError: The service answered with a problem, with something else, or not at all.
    """
    return parsed((yield from send(policy, request)).content, kind)


def parsed(content: bytes | str, kind: Any) -> Any:
    """Return JSON as an object of a model.

    Raises:
        FoxhoundError: The text is no such JSON.
    """
    try:
        return _adapter(kind).validate_json(content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_input=False, include_url=False)[0]["loc"])
        fault = f"its member {readable(where)!r} is unexpected" if where else "it is no JSON object"
        raise FoxhoundError(
            f"The answer cannot be read: {fault}. Check that the URL is that of a Foxhound service."
        ) from None


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def key_header(idempotency_key: str | None) -> Mapping[str, str]:
    """Return the header that makes a POST repeatable: the caller's key, or a new one."""
    return {"Idempotency-Key": idempotency_key or f"foxhound-{uuid.uuid4()}"}


def seconds(text: str) -> float:
    """Return `Retry-After` in seconds; 0 if it is none or a date."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0
