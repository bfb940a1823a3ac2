"""HTTP client of one Foxhound service: retries requests while the service restarts, and turns problems into text.

The module prints nothing and imports nothing of the server. Everything runs in the caller's thread, which sleeps
between tries.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

Json = dict[str, Any]
Notify = Callable[[str], None]

# HTTP statuses that are retried: the service is starting or full, or its proxy cannot reach it.
_TRY_AGAIN = (502, 503, 504)
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 15.0
# Above the longest silence of an answer: an event stream sends at least a comment every 15 s.
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)


class Unreachable(Exception):
    """The service did not answer within the retry time."""


class Refused(Exception):
    """The service answered with a problem (RFC 9457).

    Attributes:
        status: The HTTP status.
        code: The problem's code; empty if the answer was not a problem.
        lines: Text for a person: the problem, then each fault with its pointer.
    """

    def __init__(self, status: int, code: str, lines: list[str]) -> None:
        self.status = status
        self.code = code
        self.lines = lines
        super().__init__(lines[0])


class Delays:
    """Delays between tries: 0.5 s, doubled up to 15 s, until the retry time is spent; a success resets both."""

    def __init__(self, retry_for_s: float, sleep: Callable[[float], None]) -> None:
        """Wait with `sleep`, for at most `retry_for_s` >= 0 seconds without a success."""
        self._retry_for_s = retry_for_s
        self._sleep = sleep
        self.reset()

    def reset(self) -> None:
        """Start again with the first delay and the full retry time, after a success."""
        self._spent_s = 0.0
        self._next_s = FIRST_DELAY_S

    def wait(self, at_least_s: float = 0.0) -> bool:
        """Sleep until the next try; return False without sleeping if the retry time is spent.

        Args:
            at_least_s: `Retry-After` of the service, in seconds; a delay is never longer than 15 s.
        """
        delay_s = min(max(self._next_s, at_least_s), LONGEST_DELAY_S)
        if self._spent_s + delay_s > self._retry_for_s:
            return False
        self._sleep(delay_s)
        self._spent_s += delay_s
        self._next_s = min(2 * self._next_s, LONGEST_DELAY_S)
        return True


class Service:
    """A client of one service."""

    def __init__(
        self,
        url: str,
        *,
        retry_for_s: float,
        sleep: Callable[[float], None],
        notify: Notify,
        api_key: str | None = None,
    ) -> None:
        """Create a client of the service at `url`; nothing is connected yet.

        Args:
            url: `http(s)://host[:port][/prefix]`.
            retry_for_s: How long to retry without an answer, in seconds, >= 0.
            sleep: Called with the seconds to wait.
            notify: Called with the reason before each retry.
            api_key: Sent with every request to this service; None: there is none.
        """
        self.url = url.rstrip("/")
        self.sleep = sleep
        self.notify = notify
        self._retry_for_s = retry_for_s
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(timeout=_TIMEOUT, headers=headers)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def delays(self) -> Delays:
        """Return new delays, for one operation."""
        return Delays(self._retry_for_s, self.sleep)

    def get(self, path: str, **query: str) -> Json:
        """Return a resource.

        Raises:
            Refused: The service answered with a problem.
            Unreachable: It did not answer within the retry time.
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
        """Send an idempotent request until it is answered; return the JSON of the response and the response.

        Raises:
            Refused: The service answered with a problem.
            Unreachable: It did not answer within the retry time.
        """
        delays = self.delays()
        fields = dict(headers or {})
        content = None
        if body is not None:  # ASCII with escapes, so that lone surrogates can be sent too
            fields["Content-Type"], content = "application/json", json.dumps(body).encode()
        while True:
            retry_after_s = 0.0
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
                retry_after_s = _seconds(answer.headers.get("retry-after", ""))
            self.notify(f"{self.url}: {reason}")
            if not delays.wait(retry_after_s):
                raise Unreachable(f"No answer from {self.url}: {reason}")

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Open a streamed response; there is no retry.

        Raises:
            Refused: The service answered with a problem.
            httpx.TransportError: The service did not answer, or the connection was lost inside the block.
        """
        with self._http.stream("GET", self.url + path, headers=dict(headers)) as answer:
            if answer.status_code >= 300:
                answer.read()
                raise refusal(answer)
            yield answer


def is_url(text: str) -> bool:
    """Return whether a text is an HTTP URL without a query."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host) and not url.query


def readable(text: object) -> str:
    """Return a text with each non-printable character, which a terminal might interpret, replaced."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in str(text))


def refusal(answer: httpx.Response) -> Refused:
    """Return the error for an unsuccessful response."""
    try:
        problem = json.loads(answer.content)
    except (ValueError, RecursionError):
        problem = None
    if not isinstance(problem, dict) or "detail" not in problem:
        return Refused(
            answer.status_code, "", [f"The answer was {answer.status_code} {readable(answer.reason_phrase)}."]
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
    """Return the JSON object of a successful response.

    Raises:
        Refused: The response is an error, or its body is not a JSON object.
    """
    if not answer.is_success:
        raise refusal(answer)
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Refused(
            answer.status_code,
            "",
            ["The answer is not a JSON object. Check that the URL is that of a Foxhound service."],
        )
    return document


def _reason(error: httpx.TransportError) -> str:
    return readable(error) or type(error).__name__


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
