"""The engine: one device thread that steps all models, once the loader has brought them up.

Knows queues, threads and futures, and nothing of torch: a `Runner` is all it sees of a model. `submit` and `status`
are called from any thread and never block; the runners are called by the device thread alone.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from app.engine.loader import FAILED_RETRY_AFTER_S, LOADING_RETRY_AFTER_S, ModelLoader, ModelStatus
from app.engine.request import Demand, EngineRequest, Priority
from app.engine.runner import Runner
from app.engine.scheduling.batcher import Batch, Batcher
from app.engine.scheduling.model_queue import row_pixels
from app.engine.scheduling.row_budget import Shape
from app.errors import AppError, InferenceFailed, Unavailable

logger = logging.getLogger(__name__)

# A step of the full-size model on a slow CPU fits; a model that hangs must not hold up the exit for ever.
CLOSE_TIMEOUT_S = 30.0

CLOSING_DETAIL = "The service is shutting down; send the request again in a moment."

ONE_ROW = Demand()  # what a request asks of the device unless it says otherwise: one step of one row


class Engine:
    """Admits, steps, finishes and retires the requests of all models, one turn of one model at a time.

    Exceptions that a model raises reach the futures they belong to, as `InferenceFailed` with the cause chained
    (an `AppError` unchanged), and the loop lives on. A step that runs out of memory is taken again with fewer rows, and
    that model's steps stay smaller. If the device thread itself dies, every future fails.
    """

    def __init__(self, *, max_queue_size: int = 64, batcher: Batcher | None = None) -> None:
        """Make an engine without models.

        Args:
            max_queue_size: Requests per model and priority that wait, see `Batcher`; >= 1.
            batcher: Another policy; default: a new `Batcher`.
        """
        self._batcher = batcher or Batcher(max_queue_size=max_queue_size)
        self._condition = threading.Condition()  # guards the batcher and the two flags
        self._is_closing = False
        self._is_stopped = False
        self._loader = ModelLoader()
        self._notes: dict[str, str] = {}
        self._device_thread = threading.Thread(target=self._run, name="engine-device", daemon=True)

    def add_model(self, name: str, load: Callable[[], Runner], *, max_rows: int = 1) -> None:
        """Register a model, before `start`.

        Args:
            name: What `submit` calls it.
            load: Brings it up, on the loader thread. If it raises an exception with a `detail` (`AppError`,
                `PackError`), that text becomes the status; any other text stays in the log.
            max_rows: Rows of one step, >= 1, until `set_row_budget` knows better. A request that demands more
                still runs, alone.
        """
        self._loader.add(name, load)
        self._batcher.add_model(name, max_rows=max_rows)

    def set_row_budget(
        self, name: str, budget: Callable[[Shape], int], cost: Callable[[Shape, int], float] = row_pixels
    ) -> None:
        """Change how many rows a step takes, from the next step on; for the loader, once it has measured the model.

        Args:
            name: A model that was added.
            budget: Rows of one step by shape, >= 1. Called by the device thread at every turn: quick and pure.
            cost: What a step costs by shape and rows, > 0 in any unit; shapes share the device's time by it. Called
                like `budget`. Default: rows times pixels.
        """
        with self._condition:
            self._batcher.set_row_budget(name, budget, cost)

    def start(self) -> None:
        """Start the device thread, and load the models one after the other in the order they were added."""
        self._device_thread.start()
        self._loader.start()

    def submit(
        self,
        model: str,
        payload: object,
        *,
        priority: Priority = Priority.INTERACTIVE,
        demand: Demand = ONE_ROW,
        on_step: Callable[[int, int], None] | None = None,
    ) -> "Future[Any]":
        """Queue a request; `cancel()` on the future takes it out at the next step boundary.

        Args:
            model: The name that it was added under.
            payload: What its runner takes.
            priority: Who goes first.
            demand: What the request asks of the device.
            on_step: Called by the device thread after each step of this request with the steps done and those
                demanded; must not block. If it raises, that is logged and it is called no more.

        Raises:
            ModelNotReady: The model is unknown, loading, or could not be loaded.
            QueueFull: Too many requests wait for this model.
            Unavailable: The engine is closing or dead.
        """
        request = EngineRequest(model, payload, priority, demand, on_step)
        with self._condition:
            if self._is_closing or self._is_stopped:
                raise Unavailable("The inference engine is not running.", retry_after_s=LOADING_RETRY_AFTER_S)
            self._loader.check_ready(model)
            self._batcher.submit(request)
            self._condition.notify_all()
        return request.future

    def status(self) -> dict[str, ModelStatus]:
        """Tell what is loaded, without waiting for anything."""
        return self._loader.status()

    def notes(self) -> dict[str, str]:
        """Tell, by model, what an operator should know of those that serve all the same."""
        return dict(self._notes)

    def expected_wait_s(self, model: str, priority: Priority = Priority.INTERACTIVE) -> float:
        """Estimate the seconds until all that goes before a new request of this model is done, >= 0."""
        with self._condition:
            return self._batcher.expected_wait_s(model, priority)

    def queue_depth(self) -> dict[str, int]:
        """Count the requests of every model that wait for their first step or to be finished."""
        with self._condition:
            return self._batcher.depth()

    def in_flight(self) -> dict[str, int]:
        """Count the requests of every model that the engine has not settled yet."""
        with self._condition:
            return self._batcher.in_flight()

    @property
    def is_alive(self) -> bool:
        """Whether the device thread runs."""
        return self._device_thread.is_alive() and not self._is_stopped

    def refuse_waiting(self) -> None:
        """Fail what was not begun, and go on with the rest: the service is about to stop."""
        with self._condition:
            requests = self._batcher.take_waiting()
        for request in requests:
            request.fail(Unavailable(CLOSING_DETAIL, retry_after_s=LOADING_RETRY_AFTER_S))

    def close(self) -> None:
        """Stop after the current step and fail what waits or runs. May be called again."""
        with self._condition:
            self._is_closing = True
            self._condition.notify_all()
        self._loader.close(CLOSE_TIMEOUT_S)
        if self._device_thread.is_alive():
            self._device_thread.join(CLOSE_TIMEOUT_S)
        self._stop(Unavailable(CLOSING_DETAIL, retry_after_s=LOADING_RETRY_AFTER_S))

    # The device thread.

    def _run(self) -> None:
        try:
            while (turn := self._wait_for_turn()) is not None:
                turn()
        except BaseException:
            logger.critical("The device thread died.", exc_info=True)
        finally:
            self._stop(Unavailable("The inference engine stopped.", retry_after_s=FAILED_RETRY_AFTER_S))

    def _wait_for_turn(self) -> Callable[[], None] | None:
        """Return what the device does next, or None when the engine closes."""
        with self._condition:
            while not self._is_closing:
                if (request := self._batcher.next_finish()) is not None:
                    return partial(self._take_finish, request)
                if (batch := self._batcher.next_batch()) is not None:
                    return partial(self._take_step, batch)
                self._condition.wait()
        return None

    def _take_step(self, batch: Batch) -> None:
        """Give one model one step: prepare who is new, step all, then retire who is settled or line up who is done."""
        started_at = time.monotonic()
        runner = self._loader.runners[batch.model]
        for request in batch.admitted:
            self._attempt(request, partial(runner.prepare, request))
        stepping = [request for request in batch.requests if not request.settled]
        has_stepped = bool(stepping) and self._step(runner, stepping)
        if has_stepped:
            for request in stepping:
                self._count_step(request)
                self._attempt(request, partial(self._end_if_done, runner, request))
        with self._condition:
            if has_stepped:
                self._batcher.learn(batch, time.monotonic() - started_at)
            for request in batch.requests:
                if request.settled:
                    self._batcher.retire(request)
                elif request.stepped_at is not None:
                    self._batcher.line_up(request)

    def _take_finish(self, request: EngineRequest) -> None:
        """Finish one request whose steps are done."""
        started_at = time.monotonic()
        self._attempt(request, partial(self._finish, self._loader.runners[request.model], request))
        with self._condition:
            self._batcher.learn_finish(request, time.monotonic() - started_at)
            self._batcher.retire(request)

    def _step(self, runner: Runner, requests: Sequence[EngineRequest]) -> bool:
        """Advance all requests; False when that failed them, or left them as they were for a smaller step."""
        try:
            runner.step(requests)
        except BaseException as error:  # also SystemExit and RecursionError: the loop lives
            if not (_is_out_of_memory(error) and self._reduce_rows(requests)):
                self._fail(requests, error)
            return False
        return True

    def _reduce_rows(self, requests: Sequence[EngineRequest]) -> bool:
        """Make this model's steps smaller; False when they cannot be."""
        with self._condition:
            max_rows = self._batcher.reduce_rows(requests)
        if max_rows is None:
            return False
        model, shape = requests[0].model, requests[0].demand.shape
        size = f" of {'x'.join(map(str, shape))}" if shape else ""
        self._notes[model] = f"A step ran out of memory; steps now take at most {max_rows} rows{size}."
        logger.warning("Model %s: %s", model, self._notes[model])
        return True

    def _count_step(self, request: EngineRequest) -> None:
        request.steps_done += 1
        if request.on_step is None:
            return
        try:
            request.on_step(request.steps_done, request.demand.steps)
        except BaseException:  # a watcher's fault is not the request's
            logger.exception("Nobody watches a request of model %s any longer: on_step failed.", request.model)
            request.on_step = None

    def _end_if_done(self, runner: Runner, request: EngineRequest) -> None:
        if not runner.is_finished(request):
            return
        request.stepped_at = time.monotonic()
        if not request.demand.finishes_apart:
            self._finish(runner, request)

    def _finish(self, runner: Runner, request: EngineRequest) -> None:
        request.resolve(runner.finish(request))

    def _attempt(self, request: EngineRequest, call: Callable[[], None]) -> None:
        """Call into a model for one request; whatever it raises fails that request and nothing else."""
        try:
            call()
        except BaseException as error:
            self._fail([request], error)

    def _fail(self, requests: Sequence[EngineRequest], error: BaseException) -> None:
        """Give the requests what their model raised: an AppError as it is, anything else behind InferenceFailed."""
        if isinstance(error, AppError):
            failure: AppError = error
        else:
            logger.error("Model %s failed.", requests[0].model, exc_info=error)
            failure = InferenceFailed()
            failure.__cause__ = error
        for request in requests:
            request.fail(failure)

    def _stop(self, error: AppError) -> None:
        """Fail all that is left; nothing is admitted afterwards."""
        with self._condition:
            self._is_stopped = True
            requests = self._batcher.drain()
        for request in requests:
            request.fail(error)


def _is_out_of_memory(error: BaseException) -> bool:
    # By name: torch's class is not imported here.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
