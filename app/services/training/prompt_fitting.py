"""The head of a train job with the preset `from_prompts`: one on several backbones, with CLIP's knowledge of the names.

Sees arrays and settings only. Imported by `job.py` when such a job trains, as `fitting.py` is. Runs in the worker
process, on the thread of the job.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.node.protocol import TextEmbeddings
from app.schemas.evaluations import DifferenceInterval, Interval
from app.schemas.train_reports import AblationRow
from app.services.training.fitting import FittedHead, out_of_sample
from app.services.training.payloads import Examples, TrainSpec
from app.training.from_prompts import PromptRows, PromptSettings, fit_from_prompts
from app.training.heads import HeadResult
from app.training.outcome import HeadEpoch
from app.training.probe import LinearProbe, logits, predict, save_probe
from app.training.prompt_parts import PartResult, measure_parts
from app.training.settings import HeadSettings
from app.training.zero_shot import zero_shot_head


@dataclass(frozen=True, slots=True)
class PromptExamples:
    """What a head is trained on besides the combined features.

    Attributes:
        examples: The images, with combined features.
        sizes: Of each backbone, the number of its features, in the order of the combined ones.
        is_real: (N,), bool: uploaded.
        texts: CLIP's embedding of each class's text, in the order of the labels.
    """

    examples: Examples
    sizes: Mapping[str, int]
    is_real: np.ndarray
    texts: TextEmbeddings


def fit_prompt_examples(
    given: PromptExamples,
    spec: TrainSpec,
    *,
    classes: Sequence[str],
    backbone_sha256: str,
    on_epoch: Callable[[HeadEpoch], None],
) -> tuple[FittedHead, list[AblationRow]]:
    """Train a head by the recipe, and once more without each part where there are real test images.

    Returns:
        The head; and what each part gave on the real test images, empty without any.
    """
    started_s = time.perf_counter()
    examples = given.examples
    zero_shot = zero_shot_head([row[None] for row in given.texts.embeddings], given.texts.logit_scale)
    settings = PromptSettings(backbones=tuple(given.sizes))
    rows = _training_rows(given)
    head = fit_from_prompts(rows, zero_shot, settings)
    epoch = _epoch(head.probe, examples, started_s)
    on_epoch(epoch)
    fitted = FittedHead(
        data=save_probe(head.probe, classes=list(classes), backbone=backbone_sha256),
        result=HeadResult(head.probe, (epoch,), HeadSettings(solver="lbfgs")),
        probabilities=predict(head.probe, examples.features),
        is_validation=examples.is_validation,  # measured, and neither trained on nor chosen by
        out_of_sample=out_of_sample(examples, len(classes), spec.seed),
    )
    return fitted, _ablation(given, rows, zero_shot, settings)


def _training_rows(given: PromptExamples) -> PromptRows:
    """Return the plain views of the training images, then each view by another hand of all of them."""
    examples = given.examples
    train = examples.is_train
    views = [examples.features[train], *np.moveaxis(examples.more_views, 1, 0)]
    count = int(train.sum())
    return PromptRows(
        features=_by_backbone(np.concatenate(views), given.sizes),
        labels=np.tile(examples.labels[train], len(views)),
        is_view=np.arange(count * len(views)) >= count,
        # The dataset's own filter has decided already: rejected images do not belong to it.
        is_kept=np.ones(count * len(views), np.bool_),
    )


def _by_backbone(features: np.ndarray, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    ends = np.cumsum(list(sizes.values()))[:-1]
    return dict(zip(sizes, np.split(features, ends, axis=1), strict=True))


def _epoch(probe: LinearProbe, examples: Examples, started_s: float) -> HeadEpoch:
    train_loss, train_accuracy = _measure(probe, examples, examples.is_train)
    test_loss, test_accuracy = _measure(probe, examples, examples.is_test)
    validation_loss, validation_accuracy = _measure(probe, examples, examples.is_validation)
    return HeadEpoch(
        epoch=1,
        train_loss=train_loss or 0.0,
        train_accuracy=train_accuracy or 0.0,
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        lr=0.0,
        elapsed_ms=(time.perf_counter() - started_s) * 1000,
        validation_loss=validation_loss,
        validation_accuracy=validation_accuracy,
    )


def _measure(probe: LinearProbe, examples: Examples, rows: np.ndarray) -> tuple[float | None, float | None]:
    """Return mean cross-entropy and accuracy; None without rows."""
    if not rows.any():
        return None, None
    scores = logits(probe, examples.features[rows]).astype(np.float64)
    labels = examples.labels[rows]
    highest = scores.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(scores - highest).sum(axis=1)) + highest[:, 0]
    losses = log_sums - scores[np.arange(len(labels)), labels]
    return float(losses.mean()), float((scores.argmax(axis=1) == labels).mean())


def _ablation(
    given: PromptExamples, rows: PromptRows, zero_shot: LinearProbe, settings: PromptSettings
) -> list[AblationRow]:
    examples = given.examples
    tested = examples.is_test & given.is_real
    if not tested.any() or "clip" not in given.sizes:
        return []
    features = _by_backbone(examples.features[tested], given.sizes)
    labels = examples.labels[tested]
    baseline_right = logits(zero_shot, features["clip"]).argmax(axis=1) == labels
    whole, *parts = measure_parts(rows, zero_shot, settings, features, labels, baseline_right)
    return [_row(whole, part) for part in parts if part.part != "CLIP filter"]


def _row(whole: PartResult, part: PartResult) -> AblationRow:
    difference = None if part.gain is None else DifferenceInterval.model_validate(part.gain.difference)
    return AblationRow(
        part=part.part,
        with_part=Interval.model_validate(whole.accuracy),
        without_part=Interval.model_validate(part.accuracy),
        difference=difference,
    )
