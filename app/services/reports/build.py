"""Assembly of a dataset's report from the models' judgements of its images.

Reads no records, files or models. Pure functions that take up to seconds: run on a pool thread, not on the event loop.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from app.db.models import Dataset
from app.modelpacks.pack import ModelPack
from app.schemas.common import SPLITS
from app.schemas.generations import ModelRef
from app.schemas.reports import (
    MAX_CELLS,
    MAX_PAIRS,
    NUM_EXAMPLES,
    NUM_LABELS,
    ClassReport,
    ConfusionCell,
    DatasetReportRead,
    LabelShare,
    ReportImage,
    ReportPair,
    ReportPairs,
)
from app.services.datasets.recipes.clip_filter import clip_texts
from app.services.reports.judgements import Judgement
from app.services.reports.metrics import (
    Bools,
    Floats,
    Ints,
    Pairs,
    confusion,
    diversity,
    near_duplicates,
    ranked,
    shares,
    softmax,
)

# Equal pixels have a cosine of 1 up to the rounding of float32; no threshold is higher than this.
SAME_PIXELS_COSINE = 1 - 1e-5
SPLIT_NAMES: tuple[str, ...] = SPLITS
_TRAIN = SPLIT_NAMES.index("train")


@dataclass(frozen=True, slots=True)
class Entry:
    """The columns of an image that a report uses."""

    id: str
    path: str
    sha256: str
    split: str
    class_index: int
    source: str


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a dataset when the report was requested.

    Attributes:
        dataset: The row of the dataset.
        version: The version of the content.
        entries: All images.
        sample: The images to judge.
        texts: The text of each class that CLIP compares the images with.
    """

    dataset: Dataset
    version: str
    entries: list[Entry]
    sample: list[Entry]
    texts: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Derive the texts from the classes."""
        object.__setattr__(self, "texts", clip_texts(self.dataset))


@dataclass(frozen=True, slots=True)
class Judged:
    """The judged images, one in each row.

    Attributes:
        entries: (N,), the images.
        own: (N,), index of each image's class.
        split: (N,), the index of each image's split in `SPLITS`.
        embeddings: (N, D), CLIP embeddings of norm 1.
        probabilities: (N, C), CLIP's probabilities over the texts of all classes.
        labels: (N,), index of the pretrained classifier's most probable label.
    """

    entries: list[Entry]
    own: Ints
    split: Ints
    embeddings: Floats
    probabilities: Floats
    labels: Ints

    @classmethod
    def of(cls, pairs: Sequence[tuple[Entry, Judgement]]) -> "Judged":
        """Stack images and their judgements; an empty sequence gives no rows."""
        entries = [entry for entry, _ in pairs]
        found = [judgement for _, judgement in pairs]
        return cls(
            entries=entries,
            own=np.array([entry.class_index for entry in entries], dtype=np.int64),
            split=np.array([SPLIT_NAMES.index(entry.split) for entry in entries], dtype=np.int64),
            embeddings=np.stack([judgement.embedding for judgement in found])
            if found
            else np.zeros((0, 1), np.float32),
            probabilities=softmax(np.stack([one.logits for one in found])) if found else np.zeros((0, 1), np.float32),
            labels=np.array([judgement.label for judgement in found], dtype=np.int64),
        )


def own_probabilities(judged: Judged) -> Floats:
    """Return CLIP's probability of each image's own class, (N,)."""
    return judged.probabilities[np.arange(len(judged.own)), judged.own]


def report_of(
    content: Content, judged: Judged, pack: ModelPack, labels: Sequence[str], near_duplicate_cosine: float | None
) -> DatasetReportRead:
    """Compute the report.

    Args:
        content: The content of the dataset.
        judged: The judged images, at least one.
        pack: The pack whose models judged them.
        labels: The pretrained classifier's labels by index.
        near_duplicate_cosine: Least cosine of near-duplicates, -1 .. 1; None: the pack's value.
    """
    cosine = pack.near_duplicate_cosine if near_duplicate_cosine is None else near_duplicate_cosine
    least = min(cosine, SAME_PIXELS_COSINE)
    names = [entry["name"] for entry in content.dataset.classes]
    predicted = judged.probabilities.argmax(axis=1)
    cells = confusion(judged.own, predicted, len(names))
    same = near_duplicates(judged.embeddings, least, MAX_PAIRS)
    leaked = near_duplicates(judged.embeddings, least, MAX_PAIRS, groups=judged.split)
    sources = Counter(entry.source for entry in content.entries)
    return DatasetReportRead(
        dataset_id=content.dataset.id,
        version=content.version,
        model=ModelRef(id=None, name=pack.name, revision=pack.revision),
        num_images=len(content.entries),
        num_synthetic=sources["synthetic"],
        num_real=sources["real"],
        num_judged=len(judged.entries),
        num_left_out=len(content.sample) - len(judged.entries),
        is_sample=len(content.sample) < len(content.entries),
        agreement=float((predicted == judged.own).mean()),
        diversity=diversity(judged.embeddings),
        classes=_classes(content, judged, predicted, names, labels),
        confusion=[
            ConfusionCell(class_name=names[own], predicted_class=names[other], count=count)
            for own, other, count in cells[:MAX_CELLS]
        ],
        num_confusion_cells=len(cells),
        near_duplicate_cosine=cosine,
        near_duplicate_cosine_from="pack" if near_duplicate_cosine is None else "request",
        near_duplicates=_pairs(judged, names, same, same.is_member),
        leakage=_pairs(judged, names, leaked, leaked.is_member & (judged.split != _TRAIN)),
    )


def _classes(
    content: Content, judged: Judged, predicted: Ints, names: Sequence[str], labels: Sequence[str]
) -> list[ClassReport]:
    splits = Counter((entry.class_index, entry.split) for entry in content.entries)
    sources = Counter((entry.class_index, entry.source) for entry in content.entries)
    own = own_probabilities(judged)
    reports = []
    for index, name in enumerate(names):
        rows = np.flatnonzero(judged.own == index)
        worst_first = rows[ranked(own[rows])]
        reports.append(
            ClassReport(
                name=name,
                text=content.texts[index],
                num_train=splits[index, "train"],
                num_validation=splits[index, "validation"],
                num_test=splits[index, "test"],
                num_synthetic=sources[index, "synthetic"],
                num_real=sources[index, "real"],
                num_judged=len(rows),
                agreement=float((predicted[rows] == index).mean()) if len(rows) else None,
                mean_probability=float(own[rows].mean(dtype=np.float64)) if len(rows) else None,
                diversity=diversity(judged.embeddings[rows]),
                top_labels=[
                    LabelShare(label=labels[label], count=count, share=share)
                    for label, count, share in shares(judged.labels[rows], NUM_LABELS)
                ],
                best=[_image(judged, names, predicted, own, row) for row in worst_first[::-1][:NUM_EXAMPLES]],
                worst=[_image(judged, names, predicted, own, row) for row in worst_first[:NUM_EXAMPLES]],
            )
        )
    return reports


def _image(judged: Judged, names: Sequence[str], predicted: Ints, own: Floats, row: int) -> ReportImage:
    entry = judged.entries[row]
    return ReportImage(
        image_id=entry.id,
        url=f"/images/{entry.id}",
        split=entry.split,
        source=entry.source,
        predicted_class=names[predicted[row]],
        probability=float(own[row]),
    )


def _pairs(judged: Judged, names: Sequence[str], found: Pairs, members: Bools) -> ReportPairs:
    pairs = []
    for pair in found.closest:
        both = [judged.entries[pair.first], judged.entries[pair.second]]
        pairs.append(
            ReportPair(
                image_ids=[entry.id for entry in both],
                class_names=[names[entry.class_index] for entry in both],
                splits=[entry.split for entry in both],
                cosine=pair.cosine,
            )
        )
    return ReportPairs(num_pairs=found.num_pairs, num_images=int(members.sum()), pairs=pairs)
