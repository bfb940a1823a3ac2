"""The worker's way to its node's engine: HTTP over the node's Unix socket.

Knows nothing of jobs, records or models; any thread of the worker process may use a client.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np

from app.errors import InferenceFailed, Invalid, Unavailable

# An image of 150 steps at 1024 x 1024 takes minutes on a CPU, and may wait behind others.
_TIMEOUT = httpx.Timeout(3_600.0, connect=5.0)
_RETRY_S = 0.5
# The engine is loading, full or about to stop; or this process stood still while it sent.
_PASSING = (Unavailable.status, 408)
# An API process that restarts is back sooner, unless it loads a large pack.
_AWAY_S = 30.0

logger = logging.getLogger(__name__)


class NodeClient:
    """The engine of this node, as seen from another process."""

    def __init__(self, socket: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Use the node whose engine listens at `socket`; it need not be up yet."""
        self._socket = socket
        self._clock = clock
        self._lock = threading.Lock()
        self._away_since: float | None = None
        self._is_told = False
        transport = httpx.HTTPTransport(uds=str(socket))
        self._http = httpx.Client(transport=transport, base_url="http://node", timeout=_TIMEOUT)

    def render(
        self,
        spec: Mapping[str, Any],
        *,
        labels: Sequence[str] | None,
        background: bool,
        keep_waiting: Callable[[], None],
    ) -> tuple[bytes, dict[str, Any]]:
        """Make one image.

        Args:
            spec: An `ImageSpec` as JSON.
            labels: Score the image against these.
            background: Whether interactive requests go first.
            keep_waiting: Called while the engine is away or full; raises to give up.

        Returns:
            The file's bytes and what is known of the image.

        Raises:
            InferenceFailed: The model failed on this image.
            Invalid: The loaded model refuses the spec.
        """
        body = {"spec": dict(spec), "labels": list(labels) if labels else None, "background": background}
        answer = self._post("/render", keep_waiting, json=body)
        info_bytes = int(answer.headers["x-foxhound-info-bytes"])
        return answer.content[info_bytes:], cast(dict[str, Any], json.loads(answer.content[:info_bytes]))

    def features(self, image: bytes, *, keep_waiting: Callable[[], None]) -> np.ndarray:
        """Return the frozen backbone's features of an image file, (D,) float32."""
        answer = self._post("/features", keep_waiting, content=image)
        return np.frombuffer(answer.content, dtype="<f4").astype(np.float32)

    def backbone(self, *, keep_waiting: Callable[[], None]) -> dict[str, Any]:
        """Return what features depend on: `architecture`, `weights_sha256`, `preprocessing`."""
        return cast(dict[str, Any], self._post("/backbone", keep_waiting).json())

    def wait_until_loaded(self, stop: threading.Event, *, limit_s: float) -> bool:
        """Wait until the engine is there and brings up no model any longer, `stop` is set, or the limit is reached.

        Returns:
            Whether the engine said so.
        """
        deadline = time.monotonic() + limit_s
        while not stop.is_set() and time.monotonic() < deadline:
            if self._socket.exists() and self._has_loaded():
                return True
            stop.wait(_RETRY_S)
        return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _has_loaded(self) -> bool:
        try:
            answer = self._http.get("/loading")
        except httpx.TransportError:  # the API process is starting
            self._note(is_there=False)
            return False
        self._note(is_there=True)
        return answer.is_success and answer.json() is False

    def _post(self, path: str, keep_waiting: Callable[[], None], **body: Any) -> httpx.Response:
        while True:
            keep_waiting()
            try:
                answer = self._http.post(path, **body)
            except httpx.TransportError:  # the API process is restarting
                self._note(is_there=False)
                time.sleep(_RETRY_S)
                continue
            self._note(is_there=True)
            if answer.is_success:
                return answer
            problem = _problem_of(answer)
            if problem is None or answer.status_code in _PASSING or problem["code"] == "internal_error":
                time.sleep(_RETRY_S)
                continue
            refused = Invalid if answer.status_code < 500 else InferenceFailed
            raise refused(problem["detail"], code=problem["code"])

    def _note(self, *, is_there: bool) -> None:
        """Tell the log, once, that the engine cannot be reached for a while, and that it is back."""
        with self._lock:
            if is_there:
                if self._is_told:
                    logger.warning("The node's engine answers again at %s.", self._socket)
                self._away_since, self._is_told = None, False
                return
            if self._away_since is None:
                self._away_since = self._clock()
            if not self._is_told and self._clock() - self._away_since >= _AWAY_S:
                self._is_told = True
                logger.warning(
                    "The node's engine cannot be reached at %s; its work waits. Does `foxhound api` run, with the same "
                    "FOXHOUND_RUN_DIR?",
                    self._socket,
                )


def _problem_of(answer: httpx.Response) -> dict[str, Any] | None:
    """Return the problem that an answer is; None if it is no answer of ours."""
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    return cast(dict[str, Any], answer.json())
