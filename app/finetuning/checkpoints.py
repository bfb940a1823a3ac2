"""The files of a fine-tuning: a checkpoint after each epoch, the kept epoch's weights, and the finished model.

    {folder}/last.safetensors        all that the next epoch needs: trained tensors, averages, optimizer, progress
    {folder}/kept-{epoch}.safetensors  the trained tensors of the epoch that is kept
    {target}                         backbone and head, named as in a bundle: `backbone.*`, `fc.weight`, `fc.bias`

The kept epoch's file is written first, then `last`, which names it, and then older ones are removed: after a kill at
any point `last` and the file that it names belong together. Tensors that are not trained are in no checkpoint. Any
thread; all functions block.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from app.finetuning.errors import DamagedWeights, ForeignCheckpoint, NoRoomForWeights
from app.finetuning.network import Classifier, build_backbone, freeze, head_of
from app.finetuning.plan import BackboneSpec, FineTunePlan
from app.finetuning.progress import Progress
from app.finetuning.session import FineTune, build_classifier
from app.finetuning.tensor_files import Tensors, read_facts, read_tensors, sha256_of, write_tensors
from app.modelpacks.preprocessing import Preprocessing
from app.storage.files import make_folder, remove_file, storage_errors

PLAN = "plan.json"
LAST = "last.safetensors"
_KEPT = "kept-{}.safetensors"

_CHECKPOINT, _WEIGHTS, _MODEL = "fine_tune_checkpoint", "fine_tune_weights", "fine_tuned_model"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What `last.safetensors` holds; `numbers` are those of `FineTune.state`."""

    tensors: Tensors
    numbers: Mapping[str, Any]
    progress: Progress


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A finished model's file."""

    path: Path
    sha256: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class FineTuned:
    """A finished model, on the CPU, in eval mode.

    Attributes:
        backbone: Pixels (B, 3, H, W) to features (B, D).
        head: Features to logits (B, K).
        preprocessing: Of the pictures.
        classes: The names of the K classes, by label.
        facts: What else the file says: `backbone`, `mode`, `epoch`, `weights_sha256`.
    """

    backbone: nn.Module
    head: nn.Linear
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    facts: Mapping[str, Any]


def save_checkpoint(folder: Path, session: FineTune) -> None:
    """Write the files of the epoch that ended.

    Raises:
        StorageFull: They do not fit; the files of the epoch before stay.
        Unavailable: The storage cannot be written.
    """
    fingerprint, kept = session.plan.fingerprint, session.progress.kept_epoch
    if kept == len(session.progress.epochs):
        facts = {"fingerprint": fingerprint, "epoch": kept}
        write_tensors(folder / _KEPT.format(kept), session.trainer.kept_weights(), kind=_WEIGHTS, facts=facts)
    tensors, numbers = session.state()
    facts = {"fingerprint": fingerprint, **numbers}
    write_tensors(folder / LAST, tensors, kind=_CHECKPOINT, facts=facts)
    for path in folder.glob(_KEPT.format("*")):
        if path.name != _KEPT.format(kept):
            remove_file(path)


def load_checkpoint(folder: Path, plan: FineTunePlan) -> Checkpoint | None:
    """Read the last epoch's checkpoint; None before the first.

    Raises:
        ForeignCheckpoint: It belongs to another plan.
        DamagedWeights: It is damaged.
    """
    try:
        tensors, facts = read_tensors(folder / LAST, kind=_CHECKPOINT)
    except FileNotFoundError:
        return None
    try:
        if facts["fingerprint"] != plan.fingerprint:
            raise ForeignCheckpoint
        return Checkpoint(tensors, facts, Progress.from_json(facts["progress"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedWeights from error


def load_kept(folder: Path, plan: FineTunePlan) -> tuple[Classifier, int]:
    """Build the plan's network with the weights of the epoch that is kept; returns that epoch, too.

    Raises:
        ForeignCheckpoint: The files belong to another plan, or no epoch has ended.
        DamagedWeights: A file is damaged or missing.
    """
    checkpoint = load_checkpoint(folder, plan)
    if checkpoint is None:
        raise ForeignCheckpoint("No epoch of this fine-tuning has ended.")
    epoch = checkpoint.progress.kept_epoch
    try:
        tensors, facts = read_tensors(folder / _KEPT.format(epoch), kind=_WEIGHTS)
    except FileNotFoundError:
        raise DamagedWeights from None
    if facts != {"fingerprint": plan.fingerprint, "epoch": epoch}:
        raise ForeignCheckpoint
    classifier = build_classifier(plan)
    if set(tensors) != set(freeze(classifier, plan.settings.mode)):
        raise DamagedWeights
    try:
        classifier.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise DamagedWeights from error
    return classifier.requires_grad_(False), epoch


def save_fine_tuned(target: Path, classifier: Classifier, plan: FineTunePlan, epoch: int) -> ModelFile:
    """Write the finished model: one file with backbone and head.

    Raises:
        StorageFull: It does not fit; no partial file remains.
        Unavailable: The storage cannot be written.
    """
    spec = plan.backbone
    facts = {
        "backbone": {"library": spec.library, "architecture": spec.architecture, "options": dict(spec.options)},
        "preprocessing": dict(plan.preprocessing),
        "classes": list(plan.classes),
        "mode": plan.settings.mode,
        "epoch": epoch,
        "weights_sha256": plan.weights_sha256,
    }
    write_tensors(target, classifier.state_dict(), kind=_MODEL, facts=facts)
    return ModelFile(target, sha256_of(target), target.stat().st_size)


def describe_fine_tuned(path: Path) -> Mapping[str, Any]:
    """Return what a finished model's file says: `backbone`, `preprocessing`, `classes`, `mode`, `epoch`.

    Raises:
        FileNotFoundError: There is no file.
        DamagedWeights: It is no fine-tuned model, or its header is damaged.
    """
    return read_facts(path, kind=_MODEL)


def load_fine_tuned(path: Path) -> FineTuned:
    """Read a finished model.

    Raises:
        DamagedWeights: The file is missing, damaged, or no such model.
    """
    try:
        tensors, facts = read_tensors(path, kind=_MODEL)
        backbone = build_backbone(BackboneSpec(**facts["backbone"]))
        prefix = "backbone."
        backbone.load_state_dict(
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        )
        preprocessing = Preprocessing.from_config(facts["preprocessing"])
        head = head_of(tensors, len(facts["classes"])).eval().requires_grad_(False)
    except (FileNotFoundError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedWeights from error
    return FineTuned(backbone.requires_grad_(False), head, preprocessing, tuple(facts["classes"]), facts)


def bytes_needed(plan: FineTunePlan) -> int:
    """Return the most bytes that the files of a fine-tuning take at one time, headers aside.

    While files are replaced, old and new ones exist: twice the checkpoint and twice the kept weights. The finished
    model is written beside them.
    """
    settings = plan.settings
    with torch.device("meta"):
        backbone = build_backbone(plan.backbone)
    num_features = int(getattr(backbone, "num_features", 2048))  # torchvision's ResNets say nothing; 2048 at most
    classifier = Classifier(backbone, nn.Linear(num_features, len(plan.classes), device="meta"))
    trained: int = sum(parameter.numel() for parameter in freeze(classifier, settings.mode).values())
    whole: int = sum(tensor.numel() for tensor in classifier.state_dict().values())
    copies = 1 + (settings.ema_decay is not None) + (2 if settings.optimizer == "adamw" else 1)
    return 4 * (2 * trained * copies + 2 * trained + whole)


def check_room(folder: Path, plan: FineTunePlan) -> None:
    """Refuse a plan whose files do not fit on the disk of a folder, before the first epoch; creates the folder.

    Raises:
        NoRoomForWeights: With the megabytes needed.
        Unavailable: The storage cannot be used.
    """
    needed = bytes_needed(plan)
    with storage_errors():
        make_folder(folder)
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise NoRoomForWeights(
            f"Fine-tuning this backbone needs {needed / 1e6:.0f} MB of disk, and {free / 1e6:.0f} MB are free. "
            "Delete datasets or models, or free disk space. Then try again."
        )
