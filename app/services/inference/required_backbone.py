"""The check that a node has the backbone that a model was trained on, for every request that needs both.

Imports neither HTTP nor SQL. `require_backbone` may hash a file: it runs on a worker thread.
"""

from app.errors import Invalid
from app.node.protocol import BackboneFacts
from app.services.evaluation.subject import backbone_mismatch
from app.services.inference.backbones import Backbones


def require_backbone(backbones: Backbones, name: str, weights_sha256: str) -> BackboneFacts:
    """Return what features of a model's backbone depend on.

    Args:
        backbones: Of the node.
        name: The backbone that the model was trained on.
        weights_sha256: Its weights then.

    Raises:
        Conflict: `model_backbone_mismatch`: the node has no such backbone, or other weights.
        ModelNotReady: It is still loading, or its files cannot be used.
    """
    try:
        facts = backbones.describe(name).facts
    except Invalid:
        raise backbone_mismatch(name, weights_sha256, "is not on this node") from None
    if facts.weights_sha256 != weights_sha256:
        raise backbone_mismatch(name, weights_sha256, "has other weights on this node")
    return facts
