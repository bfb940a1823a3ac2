"""The service for exports of trained models: ONNX, safetensors, bundle, and the model card.

Imports no HTTP framework. `export` is called on the event loop; files are made one at a time, on the thread of the pool
`exporting`, and kept in the data folder. `card` runs on a worker thread.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from safetensors import SafetensorError

from app.error_codes import ErrorCode
from app.errors import ExportFailed, Invalid, ModelNotReady, NotFound, StorageFull, Unavailable
from app.exporting.bundle import export_bundle
from app.exporting.card import model_card
from app.exporting.child import export_onnx
from app.exporting.classifier import Classifier, Origin
from app.exporting.errors import ExportError, ExportStopped, ExportTimedOut, NotExportable, ParityFailed
from app.exporting.networks import side_by_side
from app.exporting.tensors import write_safetensors
from app.modelpacks.pack import PackError
from app.node.combined import is_combined
from app.schemas.models import ExportFormat, ModelRead
from app.services.evaluation.subject import backbone_mismatch
from app.services.images.service import StoredFile
from app.services.inference.modules import PlainModule
from app.services.inference.service import Inference
from app.services.process.thread_pools import WorkPool
from app.services.training.exports.facts import card_facts, facts_on, facts_on_several, parts_of
from app.services.training.models import Head, ModelService
from app.storage.exports import ExportedFile, ExportFiles
from app.storage.files import storage_errors

_ENDINGS: Final[dict[ExportFormat, str]] = {"onnx": "onnx", "safetensors": "safetensors", "bundle": "zip"}
_BINARY: Final = "application/octet-stream"
_RETRY_AFTER_S: Final = 60
# Models and formats of which the service remembers that there is no file.
_MAX_REFUSED: Final = 1_024


class ModelExportService:
    """Exports trained models."""

    def __init__(self, models: ModelService, inference: Inference, files: ExportFiles, pool: WorkPool) -> None:
        """Wire the service; `pool` has one thread, so that one file is made at a time."""
        self._models = models
        self._inference = inference
        self._files = files
        self._pool = pool
        self._stopping = threading.Event()
        # Changed on the event loop alone.
        self._building: dict[tuple[str, ExportFormat], asyncio.Task[StoredFile]] = {}
        # Changed on the pool's thread alone; the oldest first.
        self._refused: dict[tuple[str, ExportFormat], ExportError] = {}
        self._writers: dict[ExportFormat, Callable[[Classifier, Path], object]] = {
            "onnx": partial(export_onnx, stopping=self._stopping),
            "safetensors": write_safetensors,
            "bundle": export_bundle,
        }

    async def export(self, model_id: str, export_format: ExportFormat) -> StoredFile:
        """Return the file of a model, which is made by the first request for it.

        Requests for the same file share its making, which goes on when they are cancelled.

        Raises:
            NotFound: There is no model with this id.
            FileLost: Its own file is missing or damaged.
            Invalid: `not_exportable`: it has no such file.
            Conflict: The node does not have the backbone weights that the model was trained on.
            ExportFailed: The file computes something else, or could not be made.
            StorageFull: There is no room for the file.
            QueueFull, ModelNotReady, Unavailable: Try again.
        """
        if stored := await asyncio.to_thread(self._find, model_id, export_format):
            return stored
        key = (model_id, export_format)
        task = self._building.get(key)
        if task is None:
            task = asyncio.ensure_future(self._pool.run(partial(self._make, model_id, export_format)))
            self._building[key] = task
            task.add_done_callback(partial(self._built, key))
        return await asyncio.shield(task)

    def card(self, model_id: str) -> str:
        """Return the model card, as Markdown.

        Raises:
            NotFound: There is no model with this id.
            FileLost: Its file is missing or damaged.
        """
        model, head = self._models.read(model_id), self._models.head_of(model_id)
        return model_card(card_facts(model, head, self._inference))

    def close(self) -> None:
        """End the export that runs, so that a stop need not wait for it. May be called again, from any thread."""
        self._stopping.set()

    def _built(self, key: tuple[str, ExportFormat], task: "asyncio.Task[StoredFile]") -> None:
        del self._building[key]
        if not task.cancelled():
            task.exception()  # nobody may be waiting for it any more

    def _find(self, model_id: str, export_format: ExportFormat) -> StoredFile | None:
        """Return the kept file of a model; refuse what cannot be made, before it waits for its turn."""
        model = self._models.head_of(model_id)
        if kept := self._files.find(model_id, _ENDINGS[export_format]):
            return _stored(kept, model.ref.name, export_format)
        self._inference.require_backbone(model.backbone, model.backbone_sha256)
        if fault := self._refused.get((model_id, export_format)):
            with _export_errors():
                raise fault.with_traceback(None)
        return None

    def _make(self, model_id: str, export_format: ExportFormat) -> StoredFile:
        """Make a file and keep it; called on the pool's thread."""
        if kept := self._find(model_id, export_format):
            return kept
        model, head = self._models.read(model_id), self._models.head_of(model_id)
        with self._files.staged() as part:
            with _export_errors():
                self._write(model_id, export_format, self._load(model, head), part)
            kept_file = self._keep(part, model_id, export_format)
        return _stored(kept_file, model.name, export_format)

    def _write(self, model_id: str, export_format: ExportFormat, classifier: Classifier, part: Path) -> None:
        """Write a file; remember the errors that another attempt, of many seconds, would give again."""
        try:
            self._writers[export_format](classifier, part)
        except (NotExportable, ParityFailed) as error:
            self._refused[model_id, export_format] = error
            if len(self._refused) > _MAX_REFUSED:
                del self._refused[next(iter(self._refused))]
            raise

    def _load(self, model: ModelRead, head: Head) -> Classifier:
        """Load all backbones of a model, on the CPU.

        Raises:
            Conflict: The node has other weights than the model was trained on.
            PackError, NotExportable: As `PlainModules.load`.
        """
        if not is_combined(model.backbone):
            plain, origin = self._load_part(model.backbone, model.backbone_sha256)
            return Classifier(facts_on(model, head, plain, origin), plain.module, head.probe.weight, head.probe.bias)
        loaded = [self._load_part(part["name"], part["weights_sha256"]) for part in parts_of(head)]
        facts = facts_on_several(model, head, [plain for plain, _ in loaded], [origin for _, origin in loaded])
        module = side_by_side([plain.module for plain, _ in loaded])
        return Classifier(facts, module, head.probe.weight, head.probe.bias)

    def _load_part(self, name: str, weights_sha256: str) -> tuple[PlainModule, Origin]:
        plain = self._inference.modules.load(name)
        if plain.weights_sha256 != weights_sha256:
            raise backbone_mismatch(name, weights_sha256, "has other weights on this node")
        return plain, self._inference.modules.origin(name)

    def _keep(self, part: Path, model_id: str, export_format: ExportFormat) -> ExportedFile:
        try:
            kept = self._files.keep(part, model_id, _ENDINGS[export_format])
        except FileNotFoundError:  # its folder was removed with the model
            kept = None
        if self._models.exists(model_id):
            if kept is None:
                raise Unavailable("The file was removed while it was stored. Try again.")
            return kept
        self._files.forget(model_id)
        raise NotFound("There is no model with this id.")


@contextmanager
def _export_errors() -> Iterator[None]:
    """Convert the errors of exporting inside the block to those of the service."""
    try:
        with storage_errors():
            yield
    except NotExportable as error:
        raise Invalid.field("#query/format", error.detail, ErrorCode.NOT_EXPORTABLE) from error
    except ExportTimedOut as error:
        raise Unavailable(error.detail, code=ErrorCode.EXPORT_TIMED_OUT, retry_after_s=_RETRY_AFTER_S) from error
    except ExportStopped as error:
        raise Unavailable(error.detail) from error
    except ExportError as error:
        raise ExportFailed(error.detail) from error
    except PackError as error:
        raise ModelNotReady(error.detail, retry_after_s=_RETRY_AFTER_S) from error
    except SafetensorError as error:  # its own error for what other writers raise as OSError
        if "os error 28" in str(error):
            raise StorageFull from error
        raise


def _stored(file: ExportedFile, name: str, export_format: ExportFormat) -> StoredFile:
    media_type = "application/zip" if export_format == "bundle" else _BINARY
    # The header quotes everything but slashes, which some clients would take for folders.
    file_name = f"{name}.{_ENDINGS[export_format]}".replace("/", "_")
    return StoredFile(file.path, media_type, file.sha256, file_name)
