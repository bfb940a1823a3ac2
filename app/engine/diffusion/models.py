"""The diffusion models of a node as one model of the engine: each request goes to the runner of the model it names.

Images of different models never share a forward, because `RequestCost.weights` has the model. Handles no files and no
queues. `put` and `drop` are called by the thread that loads models, everything else by the device thread.
"""

from collections.abc import Sequence

from app.engine.diffusion.runner import DiffusionRunner, GeneratedImage, spec_of
from app.engine.request import EngineRequest
from app.error_codes import ErrorCode
from app.errors import Invalid


class DiffusionModels:
    """The runners that are loaded, by name; None is the default model, which stays."""

    def __init__(self, own: DiffusionRunner) -> None:
        """Begin with the default model alone."""
        self._runners: dict[str | None, DiffusionRunner] = {None: own}

    def put(self, name: str, runner: DiffusionRunner) -> None:
        """Add a model."""
        self._runners[name] = runner

    def drop(self, name: str) -> None:
        """Remove a model, if it is here; only cancelled images may still name it, and those fail at their next step."""
        self._runners.pop(name, None)

    def prepare(self, request: EngineRequest) -> None:
        """Prepare an image on its model.

        Raises:
            Invalid: Its model is not loaded, or as `DiffusionRunner.prepare`.
        """
        self._runner_of(request).prepare(request)

    def step(self, requests: Sequence[EngineRequest]) -> int:
        """Advance images of one model by one step; see `DiffusionRunner.step`."""
        return self._runner_of(requests[0]).step(requests)

    def is_finished(self, request: EngineRequest) -> bool:
        """Return whether the last step is taken."""
        return self._runner_of(request).is_finished(request)

    def finish(self, request: EngineRequest) -> GeneratedImage:
        """Decode an image on its model; raises as `DiffusionRunner.finish`."""
        return self._runner_of(request).finish(request)

    def _runner_of(self, request: EngineRequest) -> DiffusionRunner:
        runner = self._runners.get(spec_of(request.payload).model)
        if runner is None:
            raise Invalid("This model is not loaded.", code=ErrorCode.MODEL_NOT_FOUND)
        return runner
