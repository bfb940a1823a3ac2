"""The facts of a trained model for files and cards: from its record, its head, and what the node knows of its backbone.

Imports no HTTP framework and no SQL. `facts_on` is pure; `card_facts` reads small files; both run on pool threads.
"""

from collections.abc import Mapping
from typing import Any

from app.errors import AppError
from app.exporting.classifier import ModelFacts, Network, Origin
from app.modelpacks.pack import PackError
from app.node.combined import is_combined, part_names
from app.node.protocol import PACK_BACKBONE
from app.schemas.models import ModelRead
from app.services.inference.backbone_sources import CLIP_BACKBONE
from app.services.inference.modules import PlainModule
from app.services.inference.service import Inference
from app.services.training.models import Head


def facts_on(model: ModelRead, head: Head, plain: PlainModule, origin: Origin) -> ModelFacts:
    """Return the facts of a model on a loaded backbone."""
    return ModelFacts(
        name=model.name,
        network=plain.network,
        preprocessing=head.preprocessing or plain.preprocessing,
        classes=tuple(head.classes),
        num_features=plain.num_features,
        normalise=head.probe.normalise or plain.is_unit,
        origin=origin,
        **_records(model),
    )


def card_facts(model: ModelRead, head: Head, inference: Inference) -> ModelFacts:
    """Return the facts of a model for its card; the backbone need not be on the node, nor be only one."""
    name = model.backbone
    stored = head.preprocessing or {}
    if is_combined(name):
        parts = list(stored.get("parts", ()))
        origin = _joined([_origin_of(part["name"], part["weights_sha256"], inference) for part in parts])
        network = Network("combined", " + ".join(part_names(name)))
        settings: Mapping[str, Any] = {part["name"]: part["preprocessing"] for part in parts}
    else:
        origin = _origin_of(name, model.backbone_sha256, inference)
        recorded = model.lineage.backbone
        network = _network_of(name, (recorded and recorded.architecture) or name)
        settings = stored  # releases before 0.3 did not record them
    return ModelFacts(
        name=model.name,
        network=network,
        preprocessing=settings,
        classes=tuple(head.classes),
        num_features=head.probe.weight.shape[1],
        normalise=head.probe.normalise or name == CLIP_BACKBONE or is_combined(name),
        origin=origin,
        **_records(model),
    )


def _records(model: ModelRead) -> dict[str, Any]:
    return {
        "lineage": model.lineage.model_dump(mode="json", exclude_none=True),
        "metrics": model.metrics.model_dump(mode="json"),
    }


def _network_of(name: str, architecture: str) -> Network:
    if name == CLIP_BACKBONE:
        return Network("transformers", "CLIPVisionModelWithProjection")
    return Network("torchvision" if name == PACK_BACKBONE else "timm", architecture)


def _origin_of(name: str, weights_sha256: str, inference: Inference) -> Origin:
    """Return where weights are from, as the node knows it of a backbone of this name with the same weights."""
    try:
        if inference.backbones.describe(name).facts.weights_sha256 == weights_sha256:
            return inference.modules.origin(name)
    except (AppError, PackError):  # not on this node, or not loaded yet
        pass
    return Origin(f"{name} with the SHA-256 {weights_sha256[:12]}…, which are not on this node now")


def _joined(origins: list[Origin]) -> Origin:
    licences = {origin.licence for origin in origins}
    return Origin(
        source="; ".join(origin.source for origin in origins),
        licence=licences.pop() if len(licences) == 1 else None,
        notices=" ".join(dict.fromkeys(origin.notices for origin in origins if origin.notices)),
    )
