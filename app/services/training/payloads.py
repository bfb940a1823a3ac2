"""What train jobs hand to other processes: the spec, chunk items and results, and the records between steps.

Each type has one `from_json` and one `to_json`. The stored JSON may be older than this release, so members that older
releases did not write have defaults. Imports no job engine, no inference and no torch; runs in every process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from app.jobs.signals import Json
from app.node.protocol import PACK_BACKBONE
from app.services.images.lost_files import LostImage, refuse_lost
from app.storage.features import view_names

FROM_PROMPTS = "from_prompts"
# Views of each image by other hands, see `app/services/images/hand_views.py`.
NUM_HANDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """The spec of a `train` job: the accepted request, with every value resolved.

    The names and their order are those of the API's `spec`.

    Attributes:
        dataset: The request's dataset without its texts, if the job has to make it; None: the dataset exists.
        optimizer: The fields of `OptimizerSettings`; those of `head` count where it is given.
        head: The fields of `HeadSettings`, all resolved; None in specs of releases before 0.3.
        validation: The request's `validation`, with the default where one is needed.
        fine_tune: What is fine-tuned; None: the head alone is trained, on features.
        fine_tuning: The fields of `FineTuneSettings`; None without `fine_tune`.
        warnings: What the answer warned of, each with `code` and `detail`.
    """

    dataset_id: str
    name: str
    backbone: str
    method: str
    epochs: int
    batch_size: int
    optimizer: dict[str, Any]
    seed: int
    allow_incomplete: bool = False
    dataset: dict[str, Any] | None
    backbone_sha256: str
    head: dict[str, Any] | None = None
    validation: dict[str, Any] | None = None
    early_stopping: dict[str, Any] | None = None
    augment: dict[str, Any] | None = None
    preset: str | None = None
    fine_tune: str | None = None
    fine_tuning: dict[str, Any] | None = None
    warnings: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def from_json(cls, spec: Mapping[str, Json]) -> "TrainSpec":
        """Read a spec; it may have members that only `DatasetWork` reads, and none that is newer than its release."""
        return cls(**{each.name: spec[each.name] for each in fields(cls) if each.name in spec})

    def to_json(self) -> dict[str, Json]:
        """Return the spec."""
        return asdict(self)

    @property
    def makes_dataset(self) -> bool:
        """Whether the job has to make its dataset first."""
        return self.dataset is not None

    def settings(self) -> dict[str, Json]:
        """Return how the head is trained, for the model's lineage."""
        names = ("method", "epochs", "batch_size", "optimizer", "seed", "head", "validation", "augment", "preset")
        settings = {name: getattr(self, name) for name in names}
        return settings if self.fine_tune is None else {**settings, "fine_tuning": self.fine_tuning}

    def views(self) -> list[str]:
        """Return the names of the views of each training image."""
        if self.preset == FROM_PROMPTS:
            return view_names(num_hands=NUM_HANDS)
        augment = self.augment or {}
        return view_names(flip=augment.get("flip", False), num_crops=augment.get("crops", 0))


@dataclass(frozen=True, slots=True)
class Backbone:
    """A backbone: what features depend on besides the image.

    Attributes:
        facts: As `NodeClient.backbone` returns it, for the model's lineage and the features' keys.
    """

    facts: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name on the node; records of older releases have none, because there was one backbone."""
        return str(self.facts.get("name", PACK_BACKBONE))

    @property
    def weights_sha256(self) -> str:
        """The hash of the weights, in hexadecimal."""
        return str(self.facts["weights_sha256"])

    def parts(self) -> list["Backbone"]:
        """Return the backbones whose features are combined; itself if it is one."""
        preprocessing = self.facts.get("preprocessing")
        combined = preprocessing.get("parts") if isinstance(preprocessing, dict) else None
        return [Backbone(part) for part in combined] if combined else [self]

    @classmethod
    def from_json(cls, recorded: Mapping[str, Json]) -> "Backbone":
        """Read what `to_json` returned."""
        return cls(dict(recorded))

    def to_json(self) -> dict[str, Json]:
        """Return the facts."""
        return self.facts


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a dataset's images, in the order of training: `count` images from `start` on."""

    start: int
    count: int


@dataclass(frozen=True, slots=True)
class FeaturesPlan:
    """The record of step `backbone`: the backbone, and which images' features have to be computed.

    Attributes:
        stretches: The images of each chunk; None in records of older releases: all images, 64 at a time.
    """

    backbone: Backbone
    stretches: list[Stretch] | None = None

    @classmethod
    def from_json(cls, recorded: Mapping[str, Json]) -> "FeaturesPlan":
        """Read the record of step `backbone`; older releases stored the backbone alone."""
        if "stretches" not in recorded:
            return cls(Backbone.from_json(recorded))
        return cls(Backbone.from_json(recorded["backbone"]), [Stretch(*pair) for pair in recorded["stretches"]])

    def to_json(self) -> dict[str, Json]:
        """Return the record of step `backbone`."""
        stretches = [[one.start, one.count] for one in self.stretches or []]
        return {"backbone": self.backbone.to_json(), "stretches": stretches}

    def chunks(self, dataset_id: str, total: int) -> list["FeaturesChunk"]:
        """Return the chunks of a dataset of `total` images."""
        stretches = self.stretches
        if stretches is None:
            stretches = [Stretch(start, OLD_CHUNK_SIZE) for start in range(0, total, OLD_CHUNK_SIZE)]
        return [FeaturesChunk(dataset_id, one.start, self.backbone, one.count) for one in stretches]

    def num_cached(self, total: int) -> int:
        """Return how many of `total` images no chunk reads."""
        return 0 if self.stretches is None else total - sum(one.count for one in self.stretches)


# Images of a chunk in releases before 0.3, whose items did not say how many.
OLD_CHUNK_SIZE = 64


@dataclass(frozen=True, slots=True)
class FeaturesChunk:
    """Images of a dataset whose features are needed: `count` from `start` on, in the order of training."""

    dataset_id: str
    start: int
    backbone: Backbone
    count: int = OLD_CHUNK_SIZE

    @classmethod
    def from_json(cls, item: Mapping[str, Json]) -> "FeaturesChunk":
        """Read a chunk item."""
        backbone = Backbone.from_json(item["backbone"])
        return cls(item["dataset_id"], item["start"], backbone, item.get("count", OLD_CHUNK_SIZE))

    def to_json(self) -> dict[str, Json]:
        """Return the chunk item; `part` distinguishes it from the chunks that make images."""
        place = {"dataset_id": self.dataset_id, "start": self.start, "count": self.count}
        return {"part": "features", **place, "backbone": self.backbone.to_json()}


@dataclass(frozen=True, slots=True)
class FeaturesChunkResult:
    """How many images of a chunk have no sound file, and the first of them."""

    num_lost: int = 0
    lost: list[LostImage] = field(default_factory=list)

    @classmethod
    def from_json(cls, result: Mapping[str, Json] | None) -> "FeaturesChunkResult":
        """Read a chunk result; chunks of older releases returned nothing."""
        return cls(result["num_lost"], [LostImage(**one) for one in result["lost"]]) if result else cls()

    def to_json(self) -> dict[str, Json]:
        """Return the chunk result."""
        return {"num_lost": self.num_lost, "lost": [one.to_json() for one in self.lost]}


def refuse_lost_chunks(dataset_id: str, chunks: Sequence[FeaturesChunkResult]) -> None:
    """Fail after all images were read, if some have no sound file: all are counted, and the first ones named.

    The features of the others are cached: after a repair the job's retry computes the rest alone.

    Raises:
        FileLost: With ids and paths.
    """
    refuse_lost(dataset_id, [one for chunk in chunks for one in chunk.lost], sum(chunk.num_lost for chunk in chunks))


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A trained head whose file is written.

    Attributes:
        classes: The class names, by label.
        path: Relative to the data folder.
        sha256: Of the file, in hexadecimal.
        num_bytes: The size of the file.
        metrics: `MetricsRead` as JSON; the evaluations by split of releases before 0.3.
        dataset: What it was trained on, for the model's lineage.
        chosen: The settings of the head: the request's, or a sweep's choice; None in records of releases before 0.3.
        test: `EvaluatedModel.to_json` on the test split; None where it has no images, or of releases before 0.3.
        probe: Of a fine-tuned model: what the head that it started from was worth; None otherwise.
    """

    classes: list[str]
    path: str
    sha256: str
    num_bytes: int
    metrics: dict[str, Any]
    dataset: dict[str, Any]
    chosen: dict[str, Any] | None = None
    test: dict[str, Any] | None = None
    probe: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, recorded: Mapping[str, Json]) -> "FittedModel":
        """Read the record of step `fit`."""
        return cls(**recorded)

    def to_json(self) -> dict[str, Json]:
        """Return the record of step `fit`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Examples:
    """The images that a head is trained and tested on, as features of the frozen backbone; it stays in one process.

    Attributes:
        features: (N, D), float32, of the plain views.
        more_views: (T, V, D), float32: V further views of the T training images, in their order; V may be 0.
        labels: (N,), integers in 0 .. K - 1.
        is_train: (N,), bool: images of the split `train`.
        is_test: (N,), bool: of the split `test`; the remaining ones are of the dataset's own split `validation`.
        ids: (N,), the SHA-256 of the images' files, by which validation images are chosen.
    """

    features: np.ndarray
    more_views: np.ndarray
    labels: np.ndarray
    is_train: np.ndarray
    is_test: np.ndarray
    ids: list[str]

    @property
    def is_validation(self) -> np.ndarray:
        """(N,), bool: images of the dataset's own split `validation`; it may have none."""
        remaining: np.ndarray = ~(self.is_train | self.is_test)
        return remaining
