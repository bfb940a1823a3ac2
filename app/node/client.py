"""The worker's half of the node's protocol: a client of the engine over the node's Unix socket.

Imports neither jobs nor records nor models. Any thread of the worker process may use a client.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np

from app.errors import AppError, Conflict, FileLost, InferenceFailed, Invalid, NotFound, StorageFull, Unavailable
from app.image_spec import ImageSpec, RenderedImage
from app.logs.context import id_headers
from app.node import protocol
from app.node.abortable import post_abortably
from app.node.protocol import (
    BackboneFacts,
    FeatureBatch,
    FineTuneAsked,
    FineTunedFile,
    PreviewsOf,
    RenderRequest,
    TextEmbeddings,
)
from app.tracing.spans import NO_TRACING, Tracing

# An image of 150 steps at 1024 x 1024 takes minutes on a CPU, and may wait behind others.
_TIMEOUT = httpx.Timeout(3_600.0, connect=5.0)
_RETRY_S = 0.5
# Statuses after which a request is repeated: the engine is loading, full or stopping, or this process was suspended
# while it sent.
_TRANSIENT = (Unavailable.status, 408)
# The API process does not have the route: it is of an older release, and is about to be replaced.
_OLDER = NotFound.status
# What else than Invalid and InferenceFailed a refusal becomes.
_REFUSALS: dict[int, type[AppError]] = {each.status: each for each in (Conflict, FileLost, StorageFull)}
# Seconds without an answer before the log says so: an API process restarts faster, unless it loads a large pack.
_AWAY_S = 30.0

logger = logging.getLogger(__name__)


class NodeClient:
    """The engine of this node, as seen from another process."""

    def __init__(
        self, socket: Path, *, clock: Callable[[], float] = time.monotonic, tracing: Tracing = NO_TRACING
    ) -> None:
        """Use the node whose engine listens at `socket`; it need not listen yet."""
        self._socket = socket
        self._clock = clock
        self._tracing = tracing
        self._lock = threading.Lock()
        self._away_since: float | None = None
        self._is_logged = False
        self._missing_routes: set[str] = set()
        transport = httpx.HTTPTransport(uds=str(socket))
        self._http = httpx.Client(transport=transport, base_url="http://node", timeout=_TIMEOUT)

    def render(
        self,
        spec: ImageSpec,
        *,
        labels: Sequence[str] | None,
        background: bool,
        keep_waiting: Callable[[], None],
        caller: str = "",
        pictures: Mapping[str, bytes] | None = None,
        previews: PreviewsOf | None = None,
        scores_prompt: bool = False,
        job_id: str | None = None,
    ) -> RenderedImage:
        """Make one image.

        Args:
            spec: What to draw.
            labels: Score the image against these texts.
            background: Whether interactive requests go first.
            keep_waiting: Called while the engine is away or full; raises to give up.
            caller: Whose work it is: callers share the engine evenly.
            pictures: The PNG files of the pictures that the spec names, by the names of its fields.
            previews: Whom previews are shown, by the node's API process; None: there are none.
            scores_prompt: Score the image against its prompt without labels too.
            job_id: Whose viewers are shown how many requests go before the image; None: nobody's.

        Returns:
            The file's bytes and what is recorded of the image.

        Raises:
            InferenceFailed: The model failed on this image.
            Invalid: The loaded model refuses the spec.
        """
        asked = RenderRequest(spec, labels, background, pictures or {}, previews, scores_prompt, job_id)
        answer = self._post(protocol.RENDER, keep_waiting, caller, json=asked.to_json())
        return protocol.decode_image(answer.content, answer.headers)

    def feature_batch(self, batch: FeatureBatch, *, keep_waiting: Callable[[], None], caller: str = "") -> np.ndarray:
        """Return the features of a batch of image files, (N, V, D) float32, V views each; raises as `render`.

        Raises:
            Conflict: Other weights are loaded than the batch names.
        """
        body, headers = batch.encode()
        answer = self._post(protocol.FEATURE_BATCH, keep_waiting, caller, content=body, headers=headers)
        features = protocol.decode_features(answer.content)
        return features.reshape(len(batch.images), len(batch.views), -1)

    def texts(self, texts: Sequence[str], *, keep_waiting: Callable[[], None], caller: str = "") -> TextEmbeddings:
        """Return CLIP's embeddings of texts, at least one; raises as `render`.

        Raises:
            Conflict: CLIP could not be loaded.
        """
        answer = self._post(protocol.TEXTS, keep_waiting, caller, json={"texts": list(texts)})
        return TextEmbeddings.from_json(answer.json())

    def backbone(self, name: str = protocol.PACK_BACKBONE, *, keep_waiting: Callable[[], None]) -> BackboneFacts:
        """Return what features of a backbone depend on.

        Raises:
            Invalid: The node has no backbone of this name.
        """
        return BackboneFacts(**self._post(protocol.BACKBONE, keep_waiting, "", json={"name": name}).json())

    def fine_tune_network(self, backbone: str, *, keep_waiting: Callable[[], None]) -> dict[str, Any]:
        """Return what a backbone is built from: `library`, `architecture` and `options`.

        Raises:
            Invalid: `fine_tune_not_supported`, or there is no such backbone.
        """
        answer = self._post(protocol.FINE_TUNE_NETWORK, keep_waiting, "", json={"name": backbone})
        return cast(dict[str, Any], answer.json())

    def fine_tune_epoch(
        self, asked: FineTuneAsked, *, keep_waiting: Callable[[], None], check: Callable[[], None], caller: str = ""
    ) -> dict[str, Any]:
        """Train an epoch, unless it has ended before; return `epochs`, all so far, and `is_over`; raises as `render`.

        Args:
            asked: The epoch.
            keep_waiting: As in `render`.
            check: Called every second while the epoch is trained; what it raises ends the epoch at its next step.
            caller: Whose job it is, for the turns of callers.

        Raises:
            Conflict: The backbone or the checkpoint is another one.
            StorageFull: The checkpoint does not fit.
        """
        answer = self._post(protocol.FINE_TUNE_EPOCH, keep_waiting, caller, check=check, json=asked.to_json())
        return cast(dict[str, Any], answer.json())

    def fine_tune_model(
        self, asked: FineTuneAsked, *, keep_waiting: Callable[[], None], check: Callable[[], None], caller: str = ""
    ) -> FineTunedFile:
        """Write the finished model beside the checkpoints and ask it about pictures; raises as `fine_tune_epoch`."""
        answer = self._post(protocol.FINE_TUNE_MODEL, keep_waiting, caller, check=check, json=asked.to_json())
        return FineTunedFile.decode(answer.content, answer.headers)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _post(
        self,
        path: str,
        keep_waiting: Callable[[], None],
        caller: str,
        *,
        headers: Mapping[str, str] | None = None,
        check: Callable[[], None] | None = None,
        **body: Any,
    ) -> httpx.Response:
        fixed = {**(headers or {}), protocol.CALLER: caller, **id_headers()}
        while True:
            keep_waiting()
            headers = {**fixed, **self._tracing.headers()}
            try:
                if check is None:
                    answer = self._http.post(path, headers=headers, **body)
                else:
                    answer = post_abortably(self._socket, path, body["json"], headers=headers, check=check)
            except httpx.TransportError:  # the API process is restarting
                self._note(is_there=False)
                time.sleep(_RETRY_S)
                continue
            self._note(is_there=True)
            if answer.is_success:
                return answer
            problem = _problem_of(answer)
            if answer.status_code == _OLDER:
                self._note_older(path)
                time.sleep(_RETRY_S)
                continue
            if problem is None or answer.status_code in _TRANSIENT or problem["code"] == "internal_error":
                time.sleep(_RETRY_S)
                continue
            refused: type[AppError] = Invalid if answer.status_code < 500 else InferenceFailed
            if answer.status_code in _REFUSALS:
                refused = _REFUSALS[answer.status_code]
            raise refused(problem["detail"], code=problem["code"])

    def _note_older(self, path: str) -> None:
        """Log once for each route that the API process lacks."""
        with self._lock:
            is_known = path in self._missing_routes
            self._missing_routes.add(path)
        if not is_known:
            logger.warning(
                "The node's engine at %s has no route %s, so its API process is of an older release; its work waits. "
                "Restart the node.",
                self._socket,
                path,
            )

    def _note(self, *, is_there: bool) -> None:
        """Log once that the engine has been unreachable for `_AWAY_S`, and once that it answers again."""
        with self._lock:
            if is_there:
                if self._is_logged:
                    logger.warning("The node's engine answers again at %s.", self._socket)
                self._away_since, self._is_logged = None, False
                return
            if self._away_since is None:
                self._away_since = self._clock()
            if not self._is_logged and self._clock() - self._away_since >= _AWAY_S:
                self._is_logged = True
                logger.warning(
                    "The node's engine cannot be reached at %s; its work waits. Does `foxhound api` run, with the same "
                    "FOXHOUND_RUN_DIR?",
                    self._socket,
                )


def _problem_of(answer: httpx.Response) -> dict[str, Any] | None:
    """Return the problem that an answer carries; None if it carries none."""
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    return cast(dict[str, Any], answer.json())
