"""A head from CLIP's text embeddings, its soft labels, and its blend with a trained head.

Works on arrays: CLIP ran before. All heads here are on normalised image features (`LinearProbe.normalise`), so that
their weights can be averaged. Runs in the worker, on the CPU, on the thread of its caller.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from app.training.probe import Features, LinearProbe, Probabilities, logits, normalised, predict
from app.training.rows import Rows

DEFAULT_ALPHA = 0.5
ALPHAS = tuple(step / 10 for step in range(11))


def zero_shot_head(text_embeddings: Sequence[npt.NDArray[np.float32]], logit_scale: float) -> LinearProbe:
    """Build CLIP's zero-shot classifier: each class's weights are its mean text direction times the logit scale.

    Args:
        text_embeddings: Of each class's prompts, of any norm.
        logit_scale: CLIP's own, as a factor: exp of the stored parameter, about 100; > 0.

    Shapes:
        text_embeddings: K arrays (P_k, D), float32, P_k >= 1.

    Raises:
        ValueError: There are fewer than two classes, a class has no prompt, or a value is not finite.

    Source:
        Radford et al. 2021, section 3.1.4: the prompts' normalised embeddings are averaged and normalised again.
    """
    if len(text_embeddings) < 2 or any(rows.ndim != 2 or len(rows) == 0 for rows in text_embeddings):
        raise ValueError("A zero-shot head needs at least two classes, each with a prompt's embedding.")
    means = np.stack([normalised(rows).mean(axis=0) for rows in text_embeddings])
    weight = (logit_scale * normalised(means)).astype(np.float32)
    if not np.isfinite(weight).all():
        raise ValueError("A value of the text embeddings is not finite.")
    return LinearProbe(weight, np.zeros(len(weight), np.float32), normalise=True)


def soft_labels(head: LinearProbe, features: Features, *, temperature: float = 2.0) -> Probabilities:
    """Return class probabilities softened by a temperature, as targets of `fit_head`.

    Args:
        head: A zero-shot head.
        features: The training rows' image features.
        temperature: Divides the logits, > 0; 1: the head's own probabilities.

    Shapes:
        features: (N, D), float32.
        returns: (N, K), float32; rows sum to 1.

    Source:
        Hinton et al. 2015 (distillation); half hard and half soft labels as in He et al. 2023 (is synthetic data ready
        for image recognition).
    """
    scores = torch.from_numpy(logits(head, features)) / temperature
    probabilities: Probabilities = scores.softmax(dim=1).numpy()
    return probabilities


def blend(zero_shot: LinearProbe, trained: LinearProbe, alpha: float) -> LinearProbe:
    """Average the weights of two heads.

    Args:
        zero_shot: The head at `alpha` 0.
        trained: The head at `alpha` 1.
        alpha: In [0, 1].

    Raises:
        ValueError: The heads differ in shape, one is on normalised features and the other is not, or `alpha` is out of
            range.

    Source:
        Wortsman et al. 2022 (WiSE-FT): for linear heads the mean of the weights is the mean of the logits.
    """
    if zero_shot.weight.shape != trained.weight.shape or zero_shot.normalise != trained.normalise:
        raise ValueError("The heads must have equal shapes and both be on normalised features, or both on raw ones.")
    if not 0 <= alpha <= 1:
        raise ValueError("Alpha must be in [0, 1].")
    weight = (1 - alpha) * zero_shot.weight + alpha * trained.weight
    bias = (1 - alpha) * zero_shot.bias + alpha * trained.bias
    return LinearProbe(weight.astype(np.float32), bias.astype(np.float32), trained.normalise)


def choose_alpha(zero_shot: LinearProbe, trained: LinearProbe, validation: Rows | None) -> float:
    """Choose how much of the trained head a blend has, in steps of 0.1.

    Args:
        zero_shot: The head at 0.
        trained: The head at 1.
        validation: Real images that neither head was trained on. None or empty: 0.5, which needs none.

    Returns:
        The alpha with the highest accuracy; among equals that with the lowest loss, so that a few images, on which many
        are equal, do not choose an end of the range by chance.
    """
    if validation is None or len(validation) == 0:
        return DEFAULT_ALPHA
    rows = np.arange(len(validation))

    def rank(alpha: float) -> tuple[float, float]:
        probabilities = predict(blend(zero_shot, trained, alpha), validation.features)
        accuracy = float((probabilities.argmax(axis=1) == validation.labels).mean())
        likely = np.maximum(probabilities[rows, validation.labels], np.finfo(np.float32).tiny)
        return -accuracy, float(-np.log(likely).mean())

    return min(ALPHAS, key=rank)
