"""The node that is soaked: the real application with the demo pack, plus a thread that makes faults.

Faults enter by the front door, `Engine.submit`: nothing is patched. Runs in a process of its own:
`python -m bench.soak.node PORT STATE_FILE`, configured by the FOXHOUND_ variables. Once a second the state of the
engine is written to the file as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from app.api.serving.server import Server
from app.config import Settings
from app.engine.diffusion.runner import cost_of
from app.engine.engine import Engine
from app.engine.request import Priority, RequestCost
from app.errors import AppError
from app.image_spec import ImageSpec
from app.main import create_app, server_config
from app.services.inference.loaded import DIFFUSION
from app.services.inference.loading import ModelChoice, start_inference
from app.services.inference.service import Inference

FAULT_EVERY_S = 3.0
STATE_EVERY_S = 1.0

PAYLOAD = ImageSpec("a red fox", num_inference_steps=10, height=128, width=128, scheduler="ddim")


class Gremlin:
    """Submits requests that fail in every phase, and cancels others midway."""

    def __init__(self, engine: Engine, state_file: Path) -> None:
        """Take the engine; `start` begins."""
        self._engine = engine
        self._state_file = state_file
        self._rng = random.Random(0)
        self._futures: list[Future[Any]] = []
        self._num_faults = 0
        self._thread = threading.Thread(target=self._run, name="gremlin", daemon=True)

    def start(self) -> None:
        """Begin to make faults."""
        self._thread.start()

    def _run(self) -> None:
        pause, ticks = threading.Event(), 0
        while not pause.wait(STATE_EVERY_S):
            ticks += 1
            is_stopped = self._state_file.with_suffix(".stop").exists()
            if not is_stopped and ticks % int(FAULT_EVERY_S / STATE_EVERY_S) == 0:
                self._make_fault()
            for future in self._futures:
                if self._rng.random() < 0.3:
                    future.cancel()
            self._futures = [future for future in self._futures if not future.done()]
            self._write_state()

    def _make_fault(self) -> None:
        payloads: list[tuple[object, RequestCost]] = [
            ("not a payload", cost_of(PAYLOAD)),  # fails in prepare
            (ImageSpec("x", height=64, width=64), cost_of(PAYLOAD)),  # of another size than it says: fails a step
            (ImageSpec("x", guidance_scale=1e38, height=128, width=128), cost_of(PAYLOAD)),  # no numbers
            (PAYLOAD, cost_of(PAYLOAD)),  # its watcher fails, or it is cancelled
        ]
        payload, cost = self._rng.choice(payloads)
        try:
            self._futures.append(
                self._engine.submit(
                    DIFFUSION,
                    payload,
                    priority=self._rng.choice(list(Priority)),
                    cost=cost,
                    on_step=self._fail if self._rng.random() < 0.3 else None,
                )
            )
        except AppError:
            return  # not ready, or the queue is full
        self._num_faults += 1

    def _fail(self, done: int, total: int) -> None:
        raise RuntimeError(f"the watcher fails after step {done} of {total}")

    def _write_state(self) -> None:
        state = {
            "faults": self._num_faults,
            "in_flight": sum(self._engine.in_flight().values()),
            "is_alive": self._engine.is_alive,
            "notes": self._engine.notes(),
        }
        new = self._state_file.with_suffix(".new")
        new.write_text(json.dumps(state))
        new.replace(self._state_file)


def main(port: int, state_file: Path) -> None:
    """Serve until a signal comes."""

    def start_models(choice: ModelChoice) -> tuple[Engine, Inference]:
        engine, inference = start_inference(choice)
        Gremlin(engine, state_file).start()
        return engine, inference

    app = create_app(Settings(host="127.0.0.1", port=port), start_models=start_models)
    Server(server_config(app), app).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
