"""A head that is trained on generated images alone, for pictures that no model of ours made.

Three things move a head from generated to real pictures: views of each image by other hands, several backbones that
make different mistakes, and CLIP's text knowledge, which no image of ours has narrowed. All parts end in one linear
layer on the combined features, so that such a model is stored, exported and served like any other.

Works on arrays: the backbones ran before. Runs in the worker, on the CPU, on the thread of its caller.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.training.probe import Features, Labels, LinearProbe, Probabilities, logits, normalised
from app.training.rows import Scaling
from app.training.soft_regression import fit_soft
from app.training.zero_shot import DEFAULT_ALPHA, blend, soft_labels

Bools = npt.NDArray[np.bool_]

CLIP = "clip"
BACKBONES = ("resnet18", "photo", CLIP)
# Of standardised features: scikit-learn's C = 0.01. Of 1e-5 ... 0.1 it had the lowest loss on generated images of a
# style that the head was not trained on, for each backbone and task (docs/decisions/0046-from-prompts.md).
PENALTY = 100.0
# Of CLIP's weights, which are text directions times the logit scale: a weak pull, as the blend pulls too.
TEXT_PENALTY = 1.0


@dataclass(frozen=True, slots=True)
class PromptRows:
    """The features of generated images and of their views.

    Attributes:
        features: Of each backbone, (N, D_b), float32; D_b differs between backbones.
        labels: (N,), int64.
        is_view: (N,), bool; False: the generated image itself.
        is_kept: (N,), bool; whether the CLIP filter keeps the row's image.
    """

    features: Mapping[str, Features]
    labels: Labels
    is_view: Bools
    is_kept: Bools

    def __getitem__(self, chosen: Bools) -> "PromptRows":
        """Return the chosen rows."""
        features = {name: rows[chosen] for name, rows in self.features.items()}
        return PromptRows(features, self.labels[chosen], self.is_view[chosen], self.is_kept[chosen])


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSettings:
    """The parts of the recipe; the defaults have all parts on.

    Attributes:
        backbones: Names of the features to combine, in the order of the combined features; at least one.
        uses_views: Whether the views are training rows.
        filters: Whether only images that the CLIP filter keeps are training rows.
        soft_share: In [0, 1]: the share of CLIP's soft labels in a row's target, for the head on CLIP's features. The
            other heads have hard labels: CLIP's mistakes in their targets would make their mistakes alike.
        temperature: Of the soft labels and of the zero-shot head in the blend, > 0.
        starts_from_text: Whether the head on CLIP's features is pulled to the zero-shot head rather than to zero.
        alpha: In [0, 1]: the share of the trained head in its blend with the zero-shot head, on CLIP's features.
    """

    backbones: tuple[str, ...] = BACKBONES
    uses_views: bool = True
    filters: bool = True
    soft_share: float = 0.5
    temperature: float = 2.0
    starts_from_text: bool = True
    alpha: float = DEFAULT_ALPHA


@dataclass(frozen=True, slots=True)
class PromptHead:
    """A trained head.

    Attributes:
        probe: On the combined features of `backbones`.
        backbones: See `combine`.
        heads: The head on each backbone's features alone, of norm 1; `probe` joins their logits.
        num_rows: Training rows used.
    """

    probe: LinearProbe
    backbones: tuple[str, ...]
    heads: Mapping[str, LinearProbe]
    num_rows: int


def combine(features: Mapping[str, Features], backbones: Sequence[str]) -> Features:
    """Return the features that a combined head works on: each backbone's rows at L2 norm 1, side by side.

    With the mean of several such rows, of an image and its mirror image for example, a head gives their mean logits.

    Shapes:
        features: (N, D_b) float32 each; returns: (N, sum of D_b), float32.
    """
    return np.concatenate([normalised(features[name]) for name in backbones], axis=1)


def passes_filter(zero_shot: LinearProbe, clip_features: Features, labels: Labels) -> Bools:
    """Return which images CLIP gives more than chance for their own class: p(class) > 1 / K. **Shapes**: (N,), bool.

    Source:
        He et al. 2023 (is synthetic data from generative models ready for image recognition), section 3.1.
    """
    probabilities = soft_labels(zero_shot, clip_features, temperature=1.0)
    own = probabilities[np.arange(len(labels)), labels]
    passed: Bools = own > 1 / probabilities.shape[1]
    return passed


def fit_from_prompts(rows: PromptRows, zero_shot: LinearProbe, settings: PromptSettings) -> PromptHead:
    """Train a head per backbone and join them into one; equal arguments give equal bytes.

    The joined logits are the heads' sum divided by the root of their number: every backbone has an equal say. The sum
    itself, a product of experts, is too sure of itself, since the heads saw the same images; their mean is not sure
    enough (of 1/3, 1/2, 2/3 and 1 times the sum of three, 1/2 had the lowest loss on images of unseen styles).

    Args:
        rows: Generated images and their views; each class has a row that the settings use.
        zero_shot: CLIP's zero-shot head of the same classes (`zero_shot_head`).
        settings: The parts.

    Raises:
        ValueError: No backbone is named, or a class has no row.
    """
    if not settings.backbones:
        raise ValueError("A combined head needs at least one backbone.")
    used = rows[(rows.is_kept | (not settings.filters)) & (~rows.is_view | settings.uses_views)]
    num_classes = len(zero_shot.weight)
    if np.bincount(used.labels, minlength=num_classes).min() == 0:
        raise ValueError("A class has no training row.")
    heads = {
        name: _fit_clip(used, zero_shot, settings)
        if name == CLIP
        else _fit_backbone(used.features[name], _hard(used.labels, num_classes))
        for name in settings.backbones
    }
    weight = np.concatenate([heads[name].weight for name in settings.backbones], axis=1) / np.sqrt(len(heads))
    bias = np.sum([head.bias for head in heads.values()], axis=0) / np.sqrt(len(heads))
    probe = LinearProbe(weight.astype(np.float32), bias.astype(np.float32))
    return PromptHead(probe, settings.backbones, heads, len(used.labels))


def _hard(labels: Labels, num_classes: int) -> Probabilities:
    return np.eye(num_classes, dtype=np.float32)[labels]


def _fit_backbone(features: Features, targets: Probabilities) -> LinearProbe:
    """Fit on standardised features of norm 1; the head takes the standardisation over."""
    unit = normalised(features)
    scaling = Scaling.of(unit, "standard")
    scaled = ((unit - scaling.mean) / scaling.scale).astype(np.float32)
    folded = scaling.fold(fit_soft(scaled, targets, PENALTY))
    return LinearProbe(folded.weight, folded.bias, normalise=True)


def _fit_clip(rows: PromptRows, zero_shot: LinearProbe, settings: PromptSettings) -> LinearProbe:
    """Fit on CLIP's features from the text weights, and blend with the zero-shot head at the soft labels' temperature.

    At its own temperature the zero-shot head, sure of itself on pictures of any hand, would outvote the others.
    """
    features, share = rows.features[CLIP], settings.soft_share
    soft = soft_labels(zero_shot, features, temperature=settings.temperature)
    targets = ((1 - share) * _hard(rows.labels, len(zero_shot.weight)) + share * soft).astype(np.float32)
    start = zero_shot.weight if settings.starts_from_text else None
    fitted = fit_soft(normalised(features), targets, TEXT_PENALTY, start)
    trained = LinearProbe(fitted.weight, fitted.bias, normalise=True)
    softened = LinearProbe(zero_shot.weight / np.float32(settings.temperature), zero_shot.bias, normalise=True)
    return blend(softened, trained, settings.alpha)


def predict_classes(head: PromptHead, features: Mapping[str, Features]) -> Labels:
    """Return the class of each picture. **Shapes**: (N,), int64."""
    classes: Labels = logits(head.probe, combine(features, head.backbones)).argmax(axis=1).astype(np.int64)
    return classes
