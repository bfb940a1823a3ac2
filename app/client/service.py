"""One Foxhound service as its clients see it: requests that outlast a restart, refusals in words.

Knows HTTP and JSON, nothing of terminals and nothing of the service's insides. Everything runs in the
caller's thread, which sleeps between tries.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

Json = dict[str, Any]
Notify = Callable[[str], None]

# Answers of a service that is starting, full or behind a proxy that cannot reach it.
_TRY_AGAIN = (502, 503, 504)
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 15.0
# Events are told at least every 15 s, if only by a comment; an archive's bytes come without a break.
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)


class Unreachable(Exception):
    """The service gave no answer within the patience that there was."""


class Refused(Exception):
    """The service answered with a problem (RFC 9457).

    Attributes:
        status: The HTTP status.
        code: The problem's stable word; empty if the answer was no problem.
        lines: What to tell a person: the problem, then each fault with its pointer.
    """

    def __init__(self, status: int, code: str, lines: list[str]) -> None:
        self.status = status
        self.code = code
        self.lines = lines
        super().__init__(lines[0])


class Delays:
    """What is waited between tries: 0.5 s, doubled up to 15 s, until the patience is spent; anew after each success."""

    def __init__(self, patience_s: float, sleep: Callable[[float], None]) -> None:
        """Wait with `sleep`, for at most `patience_s` >= 0 seconds without a success."""
        self._patience_s = patience_s
        self._sleep = sleep
        self.reset()

    def reset(self) -> None:
        """Begin anew: there was a success."""
        self._spent_s = 0.0
        self._next_s = FIRST_DELAY_S

    def wait(self, at_least_s: float = 0.0) -> bool:
        """Wait for the next try; False, at once, if the patience is spent.

        Args:
            at_least_s: What the service asked for, in seconds; never more than 15 are waited.
        """
        delay_s = min(max(self._next_s, at_least_s), LONGEST_DELAY_S)
        if self._spent_s + delay_s > self._patience_s:
            return False
        self._sleep(delay_s)
        self._spent_s += delay_s
        self._next_s = min(2 * self._next_s, LONGEST_DELAY_S)
        return True


class Service:
    """A client of one service."""

    def __init__(self, url: str, *, patience_s: float, sleep: Callable[[float], None], notify: Notify) -> None:
        """Talk to the service at `url`.

        Args:
            url: `http(s)://host[:port][/prefix]`.
            patience_s: How long to try without an answer, in seconds, >= 0.
            sleep: Waits, given seconds.
            notify: Told in a sentence why it takes longer.
        """
        self.url = url.rstrip("/")
        self.sleep = sleep
        self.notify = notify
        self._patience_s = patience_s
        self._http = httpx.Client(timeout=_TIMEOUT)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def delays(self) -> Delays:
        """Return the waiting of one undertaking."""
        return Delays(self._patience_s, self.sleep)

    def get(self, path: str, **query: str) -> Json:
        """Return a resource.

        Raises:
            Refused: The service answered with a problem.
            Unreachable: It did not answer in time.
        """
        return self.request("GET", path, query=query)[0]

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Json, httpx.Response]:
        """Send what may be sent twice, until it is answered; return the answer's JSON and the answer.

        Raises:
            Refused: The service answered with a problem.
            Unreachable: It did not answer in time.
        """
        delays = self.delays()
        fields = dict(headers or {})
        content = None
        if body is not None:  # escaped, so that no text is too odd to be sent
            fields["Content-Type"], content = "application/json", json.dumps(body).encode()
        while True:
            asked_s = 0.0
            try:
                answer = self._http.request(
                    method, self.url + path, content=content, params=query or None, headers=fields
                )
            except httpx.TransportError as error:
                reason = _reason(error)
            else:
                if answer.status_code not in _TRY_AGAIN:
                    return _document(answer), answer
                reason = "; ".join(refusal(answer).lines)
                asked_s = _seconds(answer.headers.get("retry-after", ""))
            self.notify(f"{self.url}: {reason}")
            if not delays.wait(asked_s):
                raise Unreachable(f"No answer from {self.url}: {reason}")

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Give an answer as it comes in; once, without another try.

        Raises:
            Refused: The service answered with a problem.
            httpx.TransportError: It did not answer, or broke off inside the block.
        """
        with self._http.stream("GET", self.url + path, headers=dict(headers)) as answer:
            if answer.status_code >= 300:
                answer.read()
                raise refusal(answer)
            yield answer


def is_url(text: str) -> bool:
    """Tell whether a text is the address of a service."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host) and not url.query


def readable(text: object) -> str:
    """Return a service's text without what a terminal would obey."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in str(text))


def refusal(answer: httpx.Response) -> Refused:
    """Put an answer that is no success into words."""
    try:
        problem = json.loads(answer.content)
    except (ValueError, RecursionError):
        problem = None
    if not isinstance(problem, dict) or "detail" not in problem:
        return Refused(
            answer.status_code, "", [f"the answer was {answer.status_code} {readable(answer.reason_phrase)}"]
        )
    status, code = answer.status_code, str(problem.get("code", ""))
    lines = [readable(f"{problem.get('title', 'Refused')}: {problem['detail']} ({status} {code})")]
    faults = problem.get("errors")
    lines.extend(
        readable(f"  {fault.get('pointer', '#')}: {fault.get('detail', '')}")
        for fault in (faults if isinstance(faults, list) else [])
    )
    return Refused(status, code, lines)


def _document(answer: httpx.Response) -> Json:
    """Return the JSON object of a success.

    Raises:
        Refused: It is none.
    """
    if not answer.is_success:
        raise refusal(answer)
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Refused(
            answer.status_code, "", ["the answer was no JSON object; is this the address of a Foxhound service?"]
        )
    return document


def _reason(error: httpx.TransportError) -> str:
    return readable(error) or type(error).__name__


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
