"""The ASGI layer that writes the problems of a surface's paths in that surface's form of errors.

It is around `HttpMiddleware`, so that keys, quotas, bodies that are too large and a shutdown are told in the same form.
Imports no routes and no services; runs on the event loop.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import PROBLEM_MEDIA_TYPE

Problem = Mapping[str, Any]
# Faults whose sentences one message contains.
_MAX_TOLD = 3


def sentence(problem: Problem) -> str:
    """Return what a problem says, with the sentences of its first faults where there are several."""
    faults = problem.get("errors", ())
    if len(faults) < 2:
        return str(problem["detail"])
    told = [f"{_name(fault['pointer'])}: {fault['detail']}" for fault in faults[:_MAX_TOLD]]
    return " ".join([str(problem["detail"]), *told])


def openai_error(problem: Problem) -> dict[str, Any]:
    """Return a problem as OpenAI's clients read it."""
    status, faults = problem["status"], problem.get("errors", ())
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    param = _name(faults[0]["pointer"]) or None if faults else None
    error = {"message": sentence(problem), "type": kind, "param": param, "code": problem["code"]}
    return {"error": {**error, "request_id": problem["request_id"]}}


def _huggingface_error(problem: Problem) -> dict[str, Any]:
    return {"error": sentence(problem), "code": problem["code"], "request_id": problem["request_id"]}


def _a1111_error(problem: Problem) -> dict[str, Any]:
    told = sentence(problem)
    return {"error": problem["code"], "detail": told, "body": "", "errors": told, "request_id": problem["request_id"]}


FORMS: Mapping[str, Callable[[Problem], dict[str, Any]]] = {
    "/v1/": openai_error,
    "/hf/": _huggingface_error,
    "/sdapi/v1/": _a1111_error,
}


class ErrorForms:
    """Rewrites problems under the paths of `FORMS`; passes all other answers."""

    def __init__(self, app: ASGIApp, prefixes: frozenset[str]) -> None:
        """Wrap an application; `prefixes` are those of the surfaces that are on."""
        self._app = app
        self._forms = {prefix: form for prefix, form in FORMS.items() if prefix in prefixes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        path = scope["path"] if scope["type"] == "http" else ""
        form = next((form for prefix, form in self._forms.items() if path.startswith(prefix)), None)
        await self._app(scope, receive, send if form is None else _Rewriting(send, form).send)


class _Rewriting:
    """One answer on its way out: a problem is held back until it is complete."""

    def __init__(self, send: Send, form: Callable[[Problem], dict[str, Any]]) -> None:
        self._send = send
        self._form = form
        self._start: Message | None = None
        self._parts: list[bytes] = []

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kind = MutableHeaders(raw=message["headers"]).get("content-type", "")
            if message["status"] >= 400 and kind.startswith(PROBLEM_MEDIA_TYPE):
                self._start = message
                return
        if self._start is None:
            await self._send(message)
            return
        self._parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        problem = b"".join(self._parts)
        body = json.dumps(self._form(json.loads(problem))).encode() if problem else b""  # HEAD has no body
        headers = MutableHeaders(raw=start["headers"])
        headers["content-type"] = "application/json"
        if body:
            headers["content-length"] = str(len(body))
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def _name(pointer: str) -> str:
    return pointer.removeprefix("#").strip("/").replace("/", ".")
