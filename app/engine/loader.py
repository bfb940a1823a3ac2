"""Loads models one after the other on a thread of its own, and keeps the state of each.

Imports no torch and no model, and handles no requests. `status` and `check_ready` are called from any thread and never
block.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from app.engine.runner import Runner
from app.errors import ModelNotReady
from app.logs.errors import WITH_TEXT

logger = logging.getLogger(__name__)

LOADING_RETRY_AFTER_S = 5
FAILED_RETRY_AFTER_S = 60


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The state of one model.

    Attributes:
        detail: Why loading failed, as a text for people, with the command that helps where there is one; else None.
        loaded_s: Seconds that loading took; None until the model is ready.
    """

    state: Literal["loading", "ready", "failed"]
    detail: str | None = None
    loaded_s: float | None = None


class ModelLoader:
    """The models by name.

    Attributes:
        runners: The runners of the models that are ready, by name.
    """

    def __init__(self) -> None:
        """Start without models."""
        self.runners: dict[str, Runner] = {}
        self._loads: dict[str, Callable[[], Runner]] = {}
        self._status: dict[str, ModelStatus] = {}
        self._is_closing = False
        self._thread = threading.Thread(target=self._load_all, name="engine-loader", daemon=True)

    def add(self, name: str, load: Callable[[], Runner]) -> None:
        """Register a model, before `start`; see `Engine.add_model`."""
        self._loads[name] = load
        self._status[name] = ModelStatus("loading")

    def put(self, name: str, runner: Runner) -> None:
        """Add a model that was loaded elsewhere; `status` does not list it."""
        self.runners[name] = runner

    def drop(self, name: str) -> None:
        """Remove a model that `put` added."""
        self.runners.pop(name, None)

    def start(self) -> None:
        """Start the thread; it loads the models in the order in which they were added."""
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Load no further model, and wait at most `timeout_s` for the one being loaded. May be called again."""
        self._is_closing = True
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def status(self) -> dict[str, ModelStatus]:
        """Return the state of every model."""
        return dict(self._status)

    def check_ready(self, name: str) -> None:
        """Check that a model can serve.

        Raises:
            ModelNotReady: It is unknown, loading, or could not be loaded.
        """
        if name in self.runners:
            return
        status = self._status.get(name)
        if status is None:
            raise ModelNotReady("This node does not serve that model.", retry_after_s=FAILED_RETRY_AFTER_S)
        if status.state == "loading":
            raise ModelNotReady("The model is still loading.", retry_after_s=LOADING_RETRY_AFTER_S)
        if status.state == "failed":
            raise ModelNotReady("The model could not be loaded.", retry_after_s=FAILED_RETRY_AFTER_S)

    def _load_all(self) -> None:
        for name, load in self._loads.items():
            if self._is_closing:
                return
            started_at = time.monotonic()
            try:
                self.runners[name] = load()
            except BaseException as error:  # no error of a model may prevent the next one from loading
                logger.exception("Model %s could not be loaded.", name, extra=WITH_TEXT)
                detail = getattr(error, "detail", None) or "The model could not be loaded. See the log of the service."
                self._status[name] = ModelStatus("failed", detail=str(detail))
            else:
                loaded_s = time.monotonic() - started_at
                self._status[name] = ModelStatus("ready", loaded_s=loaded_s)
                logger.info("Model %s is ready after %.1f s.", name, loaded_s)
