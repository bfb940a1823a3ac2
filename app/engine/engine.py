"""The engine: one device thread that steps all models, and the loader thread that loads them.

Imports no torch and no model; it calls models through `Runner`. `submit` and `status` are called from any thread and
never block; the device thread alone calls the runners.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from app.engine.loader import FAILED_RETRY_AFTER_S, LOADING_RETRY_AFTER_S, ModelLoader, ModelStatus
from app.engine.observer import EngineObserver, Observers, StepTaken, Waiting
from app.engine.request import EngineRequest, Priority, RequestCost
from app.engine.runner import Runner, is_out_of_memory
from app.engine.scheduling.batcher import Batch, Batcher
from app.engine.scheduling.device_time import DeviceEstimate, Work
from app.engine.scheduling.fair_queuing import num_rows
from app.engine.scheduling.idle_work import IdlePiece, IdleWork
from app.engine.scheduling.model_queue import CostOfRows, FirstUse, RowsOfShape, no_first_use, row_pixels
from app.errors import AppError, InferenceFailed, Unavailable

logger = logging.getLogger(__name__)

# Longer than a step of the full-size model on a slow CPU; a model that hangs must not block the exit for ever.
CLOSE_TIMEOUT_S = 30.0

CLOSING_DETAIL = "The service is shutting down; send the request again in a moment."

ONE_ROW = RequestCost()  # the default: one step of one row


class Engine:
    """Admits, steps, finishes and retires the requests of all models, one turn of one model at a time.

    An exception that a model raises becomes the exception of the futures concerned, as `InferenceFailed` with the
    cause chained (an `AppError` unchanged), and the device thread continues. A step that runs out of memory is taken
    again with fewer rows, and that model's steps stay smaller. If the device thread itself ends, every future fails.
    """

    def __init__(
        self,
        *,
        max_queue_size: int = 64,
        batcher: Batcher | None = None,
        on_loaded: Callable[[], object] = lambda: None,
        idle_work: IdleWork | None = None,
    ) -> None:
        """Create an engine without models and without running threads.

        Args:
            max_queue_size: Requests per model and priority that wait, see `Batcher`; >= 1.
            batcher: Another scheduling policy; default: a new `Batcher`.
            on_loaded: Called once, on the loader's thread, when every added model is ready or has failed.
            idle_work: Another policy for `add_idle_work`; default: a new `IdleWork`.
        """
        self._batcher = batcher or Batcher(max_queue_size=max_queue_size)
        self._idle_work = idle_work or IdleWork()
        self._condition = threading.Condition()  # guards the batcher, the idle work and the two flags
        self._is_closing = False
        self._is_stopped = False
        self._loader = ModelLoader(on_loaded)
        self._notes: dict[str, str] = {}
        self._observers = Observers()
        self._device_thread = threading.Thread(target=self._run, name="engine-device", daemon=True)

    def add_model(self, name: str, load: Callable[[], Runner], *, max_rows: int = 1) -> None:
        """Register a model, before `start`.

        Args:
            name: The name that `submit` takes.
            load: Loads the model, on the loader thread. If it raises an exception with a `detail` (`AppError`,
                `PackError`), that text becomes the status; any other text goes to the log alone.
            max_rows: Rows of one step, >= 1, until `set_row_budget` is called. A request of more rows still runs,
                alone.
        """
        self._loader.add(name, load)
        self._batcher.add_model(name, max_rows=max_rows)

    def put_model(self, name: str, runner: Runner, *, max_rows: int = 1) -> None:
        """Add a model that is already loaded, at any time; `status` does not list it. Any thread.

        Args:
            name: The name that `submit` takes, not in use.
            runner: The model, ready for the device thread.
            max_rows: Rows of one step, >= 1.
        """
        with self._condition:
            self._batcher.add_model(name, max_rows=max_rows)
            self._loader.put(name, runner)

    def drop_model(self, name: str) -> bool:
        """Remove a model that `put_model` added; return False, without a change, while it has requests."""
        with self._condition:
            if self._batcher.in_flight().get(name):
                return False
            self._batcher.remove_model(name)
            self._loader.drop(name)
        self._notes.pop(name, None)
        return True

    def images_per_s(self, name: str) -> float | None:
        """Return the measured rows per second of a model whose requests have no shape; None before its first step."""
        with self._condition:
            return self._batcher.rows_per_s(name)

    def set_row_budget(
        self,
        name: str,
        budget: RowsOfShape,
        step_cost: CostOfRows = row_pixels,
        *,
        network: str = "",
        first_use: FirstUse = no_first_use,
    ) -> None:
        """Change the rows and the cost of a step, from the next step on; the loader calls it after measuring the model.

        Args:
            name: A model that was added.
            budget: Rows of one step by shape, >= 1. The device thread calls it at every turn, so it must be quick and
                without side effects.
            step_cost: Calibrated cost of a step by shape and rows, in seconds, > 0; shapes share the device's time in
                proportion. Called like `budget`. Default: rows times pixels, which says nothing of seconds.
            network: Of which of the model's networks, see `RequestCost.network`.
            first_use: Additional seconds of the first step at a shape; 0 once that is taken. Called like `budget`.
        """
        with self._condition:
            self._batcher.set_row_budget(name, budget, step_cost, network=network, first_use=first_use)

    def add_idle_work(self, piece: IdlePiece) -> None:
        """Let the device thread run a piece of work when it is idle, until it returns None or raises. Any thread."""
        with self._condition:
            self._idle_work.add(piece)
            self._condition.notify_all()

    def observe(self, observer: EngineObserver) -> None:
        """Report to an observer from now on."""
        self._observers.add(observer)

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
        cost: RequestCost = ONE_ROW,
        on_step: Callable[[int, int], None] | None = None,
        caller: str = "",
    ) -> "Future[Any]":
        """Queue a request; `cancel()` on the future removes it at the next step boundary.

        Args:
            model: The name that it was added under.
            payload: The input of its runner.
            priority: The order of service.
            cost: Rows, steps and shape of the request.
            on_step: Called by the device thread after each step of this request with the steps done and `cost.steps`;
                must not block. If it raises, the error is logged and it is not called again.
            caller: Whose request it is; callers share the device evenly.

        Raises:
            ModelNotReady: The model is unknown, loading, or could not be loaded.
            QueueFull: Too many requests wait for this model, and too many of this caller.
            Unavailable: The engine is closing, or its device thread has ended.
        """
        request = EngineRequest(model, payload, priority, cost, on_step, caller)
        with self._condition:
            if self._is_closing or self._is_stopped:
                raise Unavailable("The inference engine is not running.", retry_after_s=LOADING_RETRY_AFTER_S)
            self._loader.check_ready(model)
            self._batcher.submit(request)
            self._condition.notify_all()
        self._observers.report(lambda observer: observer.submitted(request))
        return request.future

    def status(self) -> dict[str, ModelStatus]:
        """Return the state of every model, without blocking."""
        return self._loader.status()

    def notes(self) -> dict[str, str]:
        """Return operator notes by model, of models that serve with restrictions."""
        return dict(self._notes)

    def expected_wait_s(self, model: str, priority: Priority = Priority.INTERACTIVE) -> float:
        """Estimate the seconds until all work ahead of a new request of this model is done, >= 0."""
        with self._condition:
            return self._batcher.expected_wait_s(model, priority)

    def estimate(self, model: str, work: Sequence[Work]) -> DeviceEstimate:
        """Estimate the device's time for background work of a model that is not submitted yet."""
        with self._condition:
            return self._batcher.estimate(model, work)

    def in_flight(self) -> dict[str, int]:
        """Count the requests of every model that are not resolved yet."""
        with self._condition:
            return self._batcher.in_flight()

    def waiting(self) -> list[Waiting]:
        """Return the requests that are not admitted yet, by model and priority."""
        with self._condition:
            return self._batcher.waiting()

    @property
    def is_alive(self) -> bool:
        """Whether the device thread runs."""
        return self._device_thread.is_alive() and not self._is_stopped

    def refuse_waiting(self) -> None:
        """Fail the requests that are not admitted yet and continue the others: the service is about to stop."""
        with self._condition:
            requests = self._batcher.take_waiting()
        for request in requests:
            request.fail(Unavailable(CLOSING_DETAIL, retry_after_s=LOADING_RETRY_AFTER_S))

    def close(self) -> None:
        """Stop after the current step and fail all waiting and running requests. May be called again."""
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
            logger.critical("The device thread ended with an error.", exc_info=True)
        finally:
            self._stop(Unavailable("The inference engine stopped.", retry_after_s=FAILED_RETRY_AFTER_S))

    def _wait_for_turn(self) -> Callable[[], None] | None:
        """Wait for work and return the next turn as a call; None when the engine closes."""
        with self._condition:
            while not self._is_closing:
                if (piece := self._idle_work.take(is_idle=not self._batcher.has_work())) is not None:
                    return piece
                if (request := self._batcher.next_finish()) is not None:
                    return partial(self._take_finish, request)
                if (batch := self._batcher.next_batch()) is not None:
                    return partial(self._take_step, batch)
                self._condition.wait(self._idle_work.wait_s())
        return None

    def _take_step(self, batch: Batch) -> None:
        """Prepare new requests, step all, then retire the resolved ones and queue those that are to be finished."""
        started_at = time.monotonic()
        runner = self._loader.runners[batch.model]
        for request in batch.admitted:
            self._observers.report(lambda observer, request=request: observer.admitted(request))  # type: ignore[misc]
            self._attempt(request, partial(runner.prepare, request))
        stepping = [request for request in batch.requests if not request.resolved]
        has_stepped = bool(stepping) and self._step(runner, stepping)
        if has_stepped:
            for request in stepping:
                request.count_step()
                self._attempt(request, partial(self._end_if_done, runner, request))
        with self._condition:
            if has_stepped:
                self._batcher.record_step(batch, time.monotonic() - started_at)
            for request in batch.requests:
                if request.resolved:
                    self._batcher.retire(request)
                elif request.stepped_at is not None:
                    self._batcher.move_to_finishing(request)

    def _take_finish(self, request: EngineRequest) -> None:
        """Finish one request that took its last step."""
        started_at = time.monotonic()
        self._attempt(request, partial(self._finish, self._loader.runners[request.model], request))
        took_s = time.monotonic() - started_at
        self._observers.report(lambda observer: observer.finished(request, took_s))
        with self._condition:
            self._batcher.record_finish(request, took_s)
            self._batcher.retire(request)

    def _step(self, runner: Runner, requests: Sequence[EngineRequest]) -> bool:
        """Advance all requests; return False if they failed, or are unchanged and wait for a smaller step."""
        began = time.monotonic()
        try:
            padding = runner.step(requests) or 0
        except BaseException as error:  # also SystemExit and RecursionError: the device thread must continue
            if not (is_out_of_memory(error) and self._reduce_rows(requests)):
                self._fail(requests, error)
            return False
        step = StepTaken(requests[0].model, num_rows(requests), padding, time.monotonic() - began)
        self._observers.report(lambda observer: observer.stepped(step))
        return True

    def _reduce_rows(self, requests: Sequence[EngineRequest]) -> bool:
        """Make this model's steps smaller; return False if no smaller step is possible."""
        with self._condition:
            max_rows = self._batcher.reduce_rows(requests)
        if max_rows is None:
            return False
        model, shape = requests[0].model, requests[0].cost.shape
        size = f" of {'x'.join(map(str, shape))}" if shape else ""
        self._notes[model] = f"A step ran out of memory; steps now take at most {max_rows} rows{size}."
        logger.warning("Model %s: %s", model, self._notes[model])
        return True

    def _end_if_done(self, runner: Runner, request: EngineRequest) -> None:
        if not runner.is_finished(request):
            return
        request.stepped_at = time.monotonic()
        if not request.cost.finishes_separately:
            self._finish(runner, request)

    def _finish(self, runner: Runner, request: EngineRequest) -> None:
        request.resolve(runner.finish(request))

    def _attempt(self, request: EngineRequest, call: Callable[[], None]) -> None:
        """Call the runner for one request; an exception of any kind fails that request alone."""
        try:
            call()
        except BaseException as error:
            self._fail([request], error)

    def _fail(self, requests: Sequence[EngineRequest], error: BaseException) -> None:
        """Fail the requests with their model's error: an AppError unchanged, any other as cause of InferenceFailed."""
        if isinstance(error, AppError):
            failure: AppError = error
        else:
            logger.error("Model %s failed.", requests[0].model, exc_info=error)
            failure = InferenceFailed()
            failure.__cause__ = error
        for request in requests:
            request.fail(failure)

    def _stop(self, error: AppError) -> None:
        """Fail all remaining requests; none is admitted afterwards."""
        with self._condition:
            self._is_stopped = True
            requests = self._batcher.drain()
        for request in requests:
            request.fail(error)
