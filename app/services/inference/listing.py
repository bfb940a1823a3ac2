"""The node's backbones as `GET /backbones` lists them. Runs on pool threads of the API process."""

from app.errors import AppError
from app.schemas.backbones import BackboneRead, PreprocessingRead
from app.services.inference.backbone_descriptions import BackboneDescription
from app.services.inference.backbones import Backbones


def read_backbone(backbones: Backbones, name: str) -> BackboneRead:
    """Return what is known of one backbone; the reason where its files cannot be used."""
    state, detail = backbones.state(name)
    found: BackboneDescription | None = None
    try:
        found = backbones.describe(name)
    except AppError as error:  # the pack is still loading, or a folder is broken or gone since it was listed
        if state in ("ready", "loadable"):
            state, detail = "failed", error.detail
    facts = None if found is None else found.facts
    speed = backbones.images_per_s(name)
    return BackboneRead(
        name=name,
        state=state,
        detail=detail,
        architecture=facts.architecture if facts else None,
        trained_on=found.trained_on if found else None,
        input_size=found.input_side if found else None,
        num_features=found.num_features if found else None,
        num_parameters=found.num_parameters if found else None,
        num_bytes=found.num_bytes if found else None,
        weights_sha256=facts.weights_sha256 if facts else None,
        num_classes=len(found.classes) if found and found.classes else None,
        images_per_s=None if speed is None else round(speed, 1),
        preprocessing=PreprocessingRead(**facts.preprocessing) if facts else None,
    )
