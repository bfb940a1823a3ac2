"""What CLIP says about a dataset's images without any training: the baseline that a trained head has to beat.

Imports no model and no torch. Runs in the worker process, on the thread of the job.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from app.errors import AppError
from app.jobs.handler import JobContext
from app.node.client import NodeClient
from app.services.jobs.wait_policy import wait_policy
from app.services.training.features import FeatureSource
from app.services.training.payloads import Backbone

logger = logging.getLogger(__name__)

CLIP_BACKBONE = "clip"
# Source: the practical and the first prompt of OpenAI's CLIP notebooks.
TEMPLATE = "a photo of a {}"


def zero_shot_classes(
    job: JobContext, node: NodeClient, source: FeatureSource, images: Sequence[Any], classes: Sequence[str]
) -> np.ndarray | None:
    """Return the class that CLIP finds most probable for each held-out image.

    Args:
        job: The job.
        node: The node's engine.
        source: Features by image and backbone.
        images: The dataset's images; those of the split `train` are not asked about.
        classes: The names of the K classes, by label.

    Returns:
        (N,), -1 for training images; None if the node has no CLIP, or it fails: a baseline must not fail a training.
    """
    predicted = np.full(len(images), -1)
    asked = [row for row, image in enumerate(images) if image.split != "train"]
    if not asked:
        return None
    keep_waiting = wait_policy(job)
    try:
        texts = node.texts([TEMPLATE.format(name) for name in classes], keep_waiting=keep_waiting, caller=job.caller)
        backbone = Backbone.from_json(node.backbone(CLIP_BACKBONE, keep_waiting=keep_waiting).to_json())
        features = source.read(job, [images[row] for row in asked], backbone)[:, 0]
    except AppError:
        logger.warning("CLIP cannot be asked, so there is no zero-shot baseline.", exc_info=True)
        return None
    predicted[asked] = (features @ texts.embeddings.T).argmax(axis=1)
    return predicted
