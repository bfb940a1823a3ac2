"""Rows of generations and their images: from rendered files to records, from records to answers.

Shared by the inline path (API process) and the `generate` job (worker process).
"""

import base64
from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.db.base import utc_now
from app.db.models import Generation, Image
from app.schemas.generations import (
    GeneratedImageRead,
    GenerationParameters,
    GenerationRead,
    GenerationTimings,
    ModelRef,
    WarningRead,
)
from app.services.images.spec import ImageSpec
from app.storage.layout import DataFolder


def image_specs(parameters: dict[str, Any]) -> list[ImageSpec]:
    """Return the spec of every image of settled `/generate` parameters: image k has seed + k."""
    fields = ("prompt", "negative_prompt", "guidance_scale", "num_inference_steps", "width", "height")
    spec = ImageSpec(
        **{name: parameters[name] for name in (*fields, "seed", "scheduler", "output_format")},
    )
    return [spec.with_seed(spec.seed + k) for k in range(parameters["num_images_per_prompt"])]


def write_image(folder: DataFolder, image_id: str, data: bytes, output_format: str) -> str:
    """Write a generation's image and return its path relative to the data folder."""
    path = folder.image_path(image_id, output_format)
    folder.write(path, data)
    return path


def add_generation(
    session: Session,
    generation_id: str,
    parameters: dict[str, Any],
    image_ids: Sequence[str],
    paths: Sequence[str],
    infos: Sequence[dict[str, Any]],
    *,
    job_id: str | None,
) -> tuple[Generation, list[Image]]:
    """Add the rows of a generation whose files are written.

    Args:
        session: The transaction that they belong to.
        generation_id: A fresh id.
        parameters: As settled.
        image_ids: One id an image.
        paths: One file an image, relative to the data folder.
        infos: `RenderedImage.info()` of each image.
        job_id: The job that made them, if one did.
    """
    lineage = infos[0]["lineage"]
    generation = Generation(
        id=generation_id,
        created_at=utc_now(),
        job_id=job_id,
        pack=lineage["pack"],
        pack_revision=lineage["pack_revision"],
        parameters=parameters,
        warnings=infos[0]["warnings"],
        timings={key: round(sum(info["timings"][key] for info in infos), 3) for key in infos[0]["timings"]},
    )
    images = [
        Image(
            id=image_id,
            created_at=generation.created_at,
            generation_id=generation_id,
            path=path,
            position=position,
            **image_columns(info),
        )
        for position, (image_id, path, info) in enumerate(zip(image_ids, paths, infos, strict=True))
    ]
    session.add(generation)
    session.flush()
    session.add_all(images)
    return generation, images


def image_columns(info: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of an image row that follow from how it was rendered."""
    lineage = info["lineage"]
    embedding = info.get("clip_embedding")  # absent from what an older revision has recorded
    return {
        "format": lineage["output_format"],
        "width": lineage["width"],
        "height": lineage["height"],
        "seed": lineage["seed"],
        "num_bytes": info["num_bytes"],
        "sha256": info["sha256"],
        "flagged": info["flagged"],
        "clip_score": info["clip_score"],
        "label_probabilities": info["label_probabilities"],
        "clip_embedding": base64.b64decode(embedding) if embedding else None,
        "lineage": lineage,
    }


def generation_read(row: Generation, images: Sequence[Image]) -> GenerationRead:
    """Return a generation as its clients see it."""
    return GenerationRead(
        id=row.id,
        created_at=row.created_at,
        model=ModelRef(id=None, name=row.pack, revision=row.pack_revision),
        parameters=GenerationParameters(**row.parameters),
        images=[_generated_image_read(image) for image in images],
        warnings=[WarningRead(**warning) for warning in row.warnings],
        timings=GenerationTimings(**row.timings),
    )


def _generated_image_read(row: Image) -> GeneratedImageRead:
    columns = ("id", "seed", "width", "height", "format", "sha256", "flagged", "clip_score", "label_probabilities")
    return GeneratedImageRead(**{name: getattr(row, name) for name in columns}, url=f"/images/{row.id}", b64_json=None)
