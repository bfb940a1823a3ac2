"""Rows of generations and their images: from rendered files to records, from records to answers.

Shared by the inline path (API process) and the `generate` job (worker process); imports no engine.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from app.db.base import utc_now
from app.db.models import Generation, Image
from app.image_spec import ImageInfo, ImageSpec
from app.schemas.generations import (
    GeneratedImageRead,
    GenerationParameters,
    GenerationRead,
    GenerationSettings,
    GenerationTimings,
    GridRead,
    ModelRef,
    WarningRead,
)
from app.schemas.source_images import ImageToImageRead
from app.storage.layout import DataFolder
from app.storage.sheets import sheet_size

# The settings of `GenerateImageRequest` that say how its prompts are read.
_READING = ("prompt_syntax", "clip_skip")


@dataclass(frozen=True, slots=True)
class GenerationSpec:
    """A `/generate` request with every value resolved: the spec of a `generate` job, a generation's parameters.

    Attributes:
        image: The first image; image k has its seed + k.
        num_images: >= 1.
        labels: Texts to score each image against; None: no scores.
        best_of: Candidates of which the `num_images` with the highest CLIP scores are kept; None: all are.
        grid: Whether the answer names a sheet of all images.
        preview: Which step events have a preview: every n-th. None: none has. Not a parameter of the generation.
    """

    image: ImageSpec
    num_images: int
    labels: list[str] | None
    preview: int | None = None
    best_of: int | None = None
    grid: bool = False

    @property
    def num_candidates(self) -> int:
        """The images that are drawn."""
        return self.best_of or self.num_images

    @property
    def pixel_steps(self) -> int:
        """The work that limits and quotas count, see `ImageSpec.pixel_steps`."""
        return self.num_candidates * self.image.pixel_steps

    def images(self) -> list[ImageSpec]:
        """Return the spec of every image that is drawn, in order."""
        return [self.image.with_seed(self.image.seed + k) for k in range(self.num_candidates)]

    def choose(self, infos: Sequence[ImageInfo]) -> list[int]:
        """Return which of the images that were drawn are kept, the best first; without `best_of`, all in order."""
        if self.best_of is None:
            return list(range(len(infos)))
        ranked = sorted(range(len(infos)), key=lambda index: -(infos[index].clip_score or 0.0))
        return ranked[: self.num_images]

    def to_json(self) -> dict[str, Any]:
        """Return the recorded parameters: plain JSON values by the names of `GenerationParameters`."""
        image = self.image.to_json()
        return {
            "prompt": image["prompt"],
            "negative_prompt": image["negative_prompt"],
            **{name: image[name] for name in (*GenerationSettings.model_fields, *_READING) if name in image},
            "num_images_per_prompt": self.num_images,
            "seed": image["seed"],
            "labels": self.labels,
            **{name: image[name] for name in ImageToImageRead.model_fields if name in image},
            **({} if self.preview is None else {"preview": self.preview}),
            **({} if self.best_of is None else {"best_of": self.best_of}),
            **({"grid": True} if self.grid else {}),
        }

    @classmethod
    def from_json(cls, parameters: Mapping[str, Any]) -> "GenerationSpec":
        """Return what recorded parameters hold."""
        return cls(
            ImageSpec.from_json(parameters),
            parameters["num_images_per_prompt"],
            parameters["labels"],
            parameters.get("preview"),
            parameters.get("best_of"),
            parameters.get("grid", False),
        )


def write_image(folder: DataFolder, image_id: str, data: bytes, output_format: str) -> str:
    """Write a generation's image and return its path relative to the data folder."""
    path = folder.image_path(image_id, output_format)
    folder.write(path, data)
    return path


def add_generation(
    session: Session,
    generation_id: str,
    spec: GenerationSpec,
    image_ids: Sequence[str],
    paths: Sequence[str],
    infos: Sequence[ImageInfo],
    *,
    job_id: str | None,
    key_id: str | None,
) -> tuple[Generation, list[Image]]:
    """Add the rows of a generation whose files are written.

    Args:
        session: The transaction that they belong to.
        generation_id: A fresh id.
        spec: What was asked for.
        image_ids: One id an image.
        paths: One file an image, relative to the data folder.
        infos: What is known of each image.
        job_id: The job that made them, if one did.
        key_id: The API key of the request, if it had one.
    """
    first = infos[0]
    generation = Generation(
        id=generation_id,
        created_at=utc_now(),
        job_id=job_id,
        key_id=key_id,
        pack=first.lineage["pack"],
        pack_revision=first.lineage["pack_revision"],
        parameters=replace(spec, preview=None).to_json(),
        warnings=first.warnings,
        timings={key: round(sum(info.timings[key] for info in infos), 3) for key in first.timings},
    )
    images = [
        Image(
            id=image_id,
            created_at=generation.created_at,
            generation_id=generation_id,
            path=path,
            position=position,
            **{**image_columns(info), **_ranked(info, spec)},
        )
        for position, (image_id, path, info) in enumerate(zip(image_ids, paths, infos, strict=True))
    ]
    session.add(generation)
    session.flush()
    session.add_all(images)
    return generation, images


def _ranked(info: ImageInfo, spec: GenerationSpec) -> dict[str, Any]:
    """Return the lineage of an image that was chosen; its file is the one that it has without a choice."""
    return {} if spec.best_of is None else {"lineage": {**info.lineage, "best_of": spec.best_of}}


def image_columns(info: ImageInfo) -> dict[str, Any]:
    """Return the columns of an image row that follow from how it was rendered."""
    lineage = info.lineage
    return {
        "format": lineage["output_format"],
        "width": lineage["width"],
        "height": lineage["height"],
        "seed": lineage["seed"],
        "num_bytes": info.num_bytes,
        "sha256": info.sha256,
        "flagged": info.flagged,
        "clip_score": info.clip_score,
        "label_probabilities": info.label_probabilities,
        "clip_embedding": base64.b64decode(info.clip_embedding) if info.clip_embedding else None,
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
        grid=_grid_read(row, images) if row.parameters.get("grid") else None,
        warnings=[WarningRead(**warning) for warning in row.warnings],
        timings=GenerationTimings(**row.timings),
    )


def _grid_read(row: Generation, images: Sequence[Image]) -> GridRead | None:
    if not images:  # retention or a client has removed them
        return None
    width, height = sheet_size(len(images), images[0].width, images[0].height)
    return GridRead(url=f"/generations/{row.id}/grid.png", width=width, height=height, b64_json=None)


def _generated_image_read(row: Image) -> GeneratedImageRead:
    columns = ("id", "seed", "width", "height", "format", "sha256", "flagged", "clip_score", "label_probabilities")
    return GeneratedImageRead(**{name: getattr(row, name) for name in columns}, url=f"/images/{row.id}", b64_json=None)
