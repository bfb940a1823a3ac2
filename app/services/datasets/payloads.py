"""What dataset and repair jobs hand to other processes: specs, chunk items, chunk results and job results.

Each type has one `from_json` and one `to_json`. The stored JSON may be older than this release, so members that older
releases did not write have defaults. Imports no job engine and no inference; runs in every process.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

from app.jobs.signals import Json
from app.services.datasets.recipes.recipe import NO_OFFSETS, Offsets, PriorAttempts
from app.services.images.lost_files import LostImage

NOTHING_TRIED = PriorAttempts()


def offsets_json(made: Offsets) -> dict[str, Json]:
    """Return offsets as specs keep them; a worker of a release before 0.3 reads those without `validation`."""
    return _without_zero_validation(asdict(made))


def attempts_json(tried: PriorAttempts) -> dict[str, Json]:
    """Return prior attempts as specs keep them, as `offsets_json`."""
    return _without_zero_validation(asdict(tried))


def _without_zero_validation(numbers: dict[str, Json]) -> dict[str, Json]:
    return {name: number for name, number in numbers.items() if number or name != "validation"}


class MissingImage(TypedDict):
    """An empty slot of a dataset and the outcomes of the attempts at it, as in `datasets.missing`."""

    class_name: str
    split: str
    position: int
    num_rejected: int
    num_flagged: int
    num_failed: int


@dataclass(frozen=True, slots=True)
class DatasetWork:
    """The members of the spec of a job that generates images, a `dataset` or a `train` job.

    Attributes:
        dataset_id: The dataset to generate.
        made: The slots that the job leaves unchanged, since earlier jobs have filled them.
        tried: The slots that earlier jobs attempted, and how often.
    """

    dataset_id: str
    made: Offsets = NO_OFFSETS
    tried: PriorAttempts = NOTHING_TRIED

    @classmethod
    def from_json(cls, spec: Mapping[str, Json]) -> "DatasetWork":
        """Read a spec; specs that extend or complete nothing have neither `made` nor `tried`."""
        return cls(spec["dataset_id"], Offsets(**spec.get("made") or {}), PriorAttempts(**spec.get("tried") or {}))

    def to_json(self) -> dict[str, Json]:
        """Return the members of a spec."""
        made, tried = offsets_json(self.made), attempts_json(self.tried)
        return {"dataset_id": self.dataset_id, "made": made, "tried": tried}


@dataclass(frozen=True, slots=True)
class ImagesChunk:
    """The slots `start` <= number < `stop` of a dataset, behind the offsets `made`; see `Recipe.slot`."""

    dataset_id: str
    start: int
    stop: int
    made: Offsets = NO_OFFSETS
    tried: PriorAttempts = NOTHING_TRIED

    @classmethod
    def from_json(cls, item: Mapping[str, Json]) -> "ImagesChunk":
        """Read a chunk item; items of older releases have neither `made` nor `tried`."""
        made, tried = Offsets(**item.get("made") or {}), PriorAttempts(**item.get("tried") or {})
        return cls(item["dataset_id"], item["start"], item["stop"], made, tried)

    def to_json(self) -> dict[str, Json]:
        """Return the chunk item; `part` distinguishes it from the other chunks of a train job."""
        tried = {} if self.tried == NOTHING_TRIED else attempts_json(self.tried)
        work = {"part": "images", "dataset_id": self.dataset_id, "made": offsets_json(self.made), "tried": tried}
        return {**work, "start": self.start, "stop": self.stop}


@dataclass(frozen=True, slots=True)
class ImagesChunkResult:
    """How many slots of a chunk have their image, and which have none."""

    num_made: int
    missing: list[MissingImage] = field(default_factory=list)

    @classmethod
    def from_json(cls, result: Json) -> "ImagesChunkResult":
        """Read a chunk result; chunks of older releases returned the number alone."""
        return cls(result["made"], result["missing"]) if isinstance(result, dict) else cls(result)

    def to_json(self) -> dict[str, Json]:
        """Return the chunk result."""
        return {"made": self.num_made, "missing": self.missing}


@dataclass(frozen=True, slots=True)
class DatasetResult:
    """The result of a `dataset` job: how many images are behind what was made, and how many are missing there."""

    dataset_id: str
    num_images: int
    num_missing: int

    def to_json(self) -> dict[str, Json]:
        """Return the job's result."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RepairSpec:
    """The spec of a `repair` job."""

    dataset_id: str

    @classmethod
    def from_json(cls, spec: Mapping[str, Json]) -> "RepairSpec":
        """Read a spec."""
        return cls(spec["dataset_id"])

    def to_json(self) -> dict[str, Json]:
        """Return the spec."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FilesChunk:
    """The files `start` <= number < `stop` of a dataset, in the order of their paths."""

    dataset_id: str
    start: int
    stop: int

    @classmethod
    def from_json(cls, item: Mapping[str, Json]) -> "FilesChunk":
        """Read a chunk item."""
        return cls(item["dataset_id"], item["start"], item["stop"])

    def to_json(self) -> dict[str, Json]:
        """Return the chunk item."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Restoration:
    """What a repair made of a lost image.

    Attributes:
        lost: The image, with the reason that it is lost; None once the file has the bytes of its record again.
        new_image_id: The id of the new image that replaces it; None if the image stays lost.
    """

    lost: LostImage | None = None
    new_image_id: str | None = None

    def to_json(self) -> dict[str, Json]:
        """Return an image that has not got its bytes back, as results name it."""
        if self.lost is None:
            raise ValueError("An image that has its bytes is in no list.")
        new = {} if self.new_image_id is None else {"new_image_id": self.new_image_id}
        return {**self.lost.to_json(), **new}


@dataclass(frozen=True, slots=True)
class FilesChunkResult:
    """What a repair made of the lost images of a chunk, or of all.

    Attributes:
        num_restored: Images whose file has the bytes of its record again.
        redrawn: Images that were replaced by a new one, with its id.
        unrestored: Images that stay lost.
    """

    num_restored: int
    redrawn: list[dict[str, Json]]
    unrestored: list[dict[str, Json]]

    @classmethod
    def of(cls, restorations: Iterable[Restoration]) -> "FilesChunkResult":
        """Sort what was made of the lost images of a chunk."""
        done = list(restorations)
        others = [one for one in done if one.lost is not None]
        return cls(
            len(done) - len(others),
            [one.to_json() for one in others if one.new_image_id is not None],
            [one.to_json() for one in others if one.new_image_id is None],
        )

    @classmethod
    def from_json(cls, result: Mapping[str, Json]) -> "FilesChunkResult":
        """Read a chunk result."""
        return cls(result["num_restored"], result["redrawn"], result["unrestored"])

    def to_json(self) -> dict[str, Json]:
        """Return the chunk result."""
        return {"num_restored": self.num_restored, "redrawn": self.redrawn, "unrestored": self.unrestored}


@dataclass(frozen=True, slots=True)
class RepairResult:
    """The result of a `repair` job: all images are counted, and the first ones of each sort named."""

    dataset_id: str
    num_checked: int
    num_restored: int
    num_redrawn: int
    num_unrestored: int
    redrawn: list[dict[str, Any]]
    unrestored: list[dict[str, Any]]

    @classmethod
    def of(cls, dataset_id: str, num_checked: int, ended: Sequence[FilesChunkResult], max_named: int) -> "RepairResult":
        """Add up the chunks' results, and name at most so many images of each sort."""
        redrawn = [image for chunk in ended for image in chunk.redrawn]
        unrestored = [image for chunk in ended for image in chunk.unrestored]
        num_restored = sum(chunk.num_restored for chunk in ended)
        counts = (num_checked, num_restored, len(redrawn), len(unrestored))
        return cls(dataset_id, *counts, redrawn[:max_named], unrestored[:max_named])

    def to_json(self) -> dict[str, Json]:
        """Return the job's result."""
        return asdict(self)
