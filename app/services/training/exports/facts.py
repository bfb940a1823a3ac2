"""The facts of a trained model for files and cards: from its record, its head, and what the node knows of its backbone.

Imports no HTTP framework and no SQL. `facts_on` is pure; `card_facts` reads small files; both run on pool threads.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.errors import AppError
from app.exporting.classifier import ModelFacts, Network, Origin, Part
from app.modelpacks.pack import PackError
from app.node.combined import is_combined
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


def facts_on_several(
    model: ModelRead, head: Head, plains: Sequence[PlainModule], origins: Sequence[Origin]
) -> ModelFacts:
    """Return the facts of a model on several loaded backbones, in the order of the features."""
    parts = [
        Part(stored["name"], plain.network, stored["preprocessing"], origin)
        for stored, plain, origin in zip(parts_of(head), plains, origins, strict=True)
    ]
    return _facts_of_parts(model, head, parts)


def parts_of(head: Head) -> list[dict[str, Any]]:
    """Return what is stored of each backbone of a model on several: `name`, `weights_sha256`, `preprocessing`."""
    return list((head.preprocessing or {}).get("parts", ()))


def card_facts(model: ModelRead, head: Head, inference: Inference) -> ModelFacts:
    """Return the facts of a model for its card; the backbone need not be on the node, nor be only one."""
    name = model.backbone
    if is_combined(name):
        return _facts_of_parts(model, head, [_described_part(stored, inference) for stored in parts_of(head)])
    recorded = model.lineage.backbone
    return ModelFacts(
        name=model.name,
        network=_network_of(name, (recorded and recorded.architecture) or name),
        preprocessing=head.preprocessing or {},  # releases before 0.3 did not record them
        classes=tuple(head.classes),
        num_features=head.probe.weight.shape[1],
        normalise=head.probe.normalise or name == CLIP_BACKBONE,
        origin=_origin_of(name, model.backbone_sha256, inference),
        **_records(model),
    )


def _facts_of_parts(model: ModelRead, head: Head, parts: Sequence[Part]) -> ModelFacts:
    named = [replace(part, name=name) for part, name in zip(parts, _file_names(parts), strict=True)]
    return ModelFacts(
        name=model.name,
        network=Network("combined", " + ".join(part.name for part in parts)),
        preprocessing={part.name: part.preprocessing for part in named},
        classes=tuple(head.classes),
        num_features=head.probe.weight.shape[1],
        normalise=head.probe.normalise,
        origin=_joined([part.origin for part in parts]),
        parts=tuple(named),
        **_records(model),
    )


def _file_names(parts: Sequence[Part]) -> list[str]:
    """Return what files call the backbones: without dots, which separate the names of tensors."""
    names = [part.name.replace(".", "_") for part in parts]
    is_unique = len(set(names)) == len(names)
    return names if is_unique else [f"{name}_{number}" for number, name in enumerate(names)]


def _described_part(stored: dict[str, Any], inference: Inference) -> Part:
    name = stored["name"]
    network = _network_of(name, stored.get("architecture") or name)
    return Part(name, network, stored["preprocessing"], _origin_of(name, stored["weights_sha256"], inference))


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
