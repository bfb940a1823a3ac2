"""Multinomial logistic regression on soft targets, with a penalty on the distance from first weights.

scikit-learn's has neither. Works on arrays. Runs in the worker, on the CPU, on the thread of its caller; limits BLAS to
one thread.
"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax

from app.training.probe import Features, LinearProbe, Probabilities
from app.training.rows import one_thread

Floats = npt.NDArray[np.float64]

MAX_ITERATIONS = 300


def fit_soft(
    features: Features, targets: Probabilities, penalty: float, start: npt.NDArray[np.float32] | None = None
) -> LinearProbe:
    """Minimise the summed cross-entropy plus penalty / 2 times the squared distance of the weights from the start.

    The biases start at 0 and have no penalty. With hard targets and no start this is scikit-learn's logistic regression
    with C = 1 / penalty. Equal arguments give equal bytes for any number of threads.

    Args:
        features: Scaled as the penalty expects.
        targets: Rows of probabilities.
        penalty: > 0.
        start: The weights without evidence; None: zeros.

    Shapes:
        features: (N, D), float32; targets: (N, K), float32; start: (K, D), float32.

    Raises:
        ValueError: The shapes do not fit, or the penalty is not positive.
    """
    num_classes, width = targets.shape[1], features.shape[1]
    if (
        len(features) != len(targets)
        or len(features) == 0
        or (start is not None and start.shape != (num_classes, width))
    ):
        raise ValueError("The shapes must be (N, D) for the features, (N, K) for the targets and (K, D) for the start.")
    if penalty <= 0:
        raise ValueError("The penalty must be positive.")
    origin = np.zeros((num_classes, width)) if start is None else start.astype(np.float64)

    def loss(flat: Floats) -> tuple[float, Floats]:
        weight, bias = flat[:-num_classes].reshape(num_classes, width), flat[-num_classes:]
        scores = features @ weight.T.astype(np.float32) + bias.astype(np.float32)
        logs = log_softmax(scores, axis=1)
        errors = np.exp(logs) - targets
        moved = weight - origin
        value = -float((targets * logs).sum(dtype=np.float64)) + penalty / 2 * float((moved**2).sum())
        slope = (errors.T @ features).astype(np.float64) + penalty * moved
        return value, np.concatenate([slope.ravel(), errors.sum(axis=0, dtype=np.float64)])

    first = np.concatenate([origin.ravel(), np.zeros(num_classes)])
    with one_thread():
        found = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS, "ftol": 1e-8})
    weight = found.x[:-num_classes].reshape(num_classes, width)
    return LinearProbe(weight.astype(np.float32), found.x[-num_classes:].astype(np.float32))
