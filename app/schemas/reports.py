"""Response models of a dataset's report, with the definition of every figure. Imports no services; pure."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from app.schemas.common import ImageSource, Response, Sha256, Split
from app.schemas.generations import ModelRef

MAX_JUDGED, MAX_PAIRS, MAX_CELLS, MAX_CLASSES = 10_000, 100, 1_000, 1_000
MAX_LEFT_OUT = 20
NUM_EXAMPLES, NUM_LABELS = 5, 5
MAX_SHEET_ROWS = 50

Share = Annotated[float, Field(ge=0, le=1)]
ThresholdSource = TypeAliasType(
    "ThresholdSource",
    Annotated[Literal["request", "pack"], Field(description="Source of a threshold: the request, or the loaded pack.")],
)
MaxImages = Annotated[
    int,
    Field(
        ge=1,
        le=MAX_JUDGED,
        json_schema_extra={"format": "int32"},
        description="Maximum number of images to judge. Of a larger dataset, a sample is judged: from each class and "
        "split in turn, the images whose files have the smallest hashes. Equal content gives the same sample.",
    ),
]
NearDuplicateCosine = Annotated[
    float,
    Field(
        ge=0.5,
        le=1,
        description="Minimum cosine of the CLIP embeddings of near-duplicates; default: a value of the loaded pack "
        "that separates copies from other images of the same prompt. A useful value depends on the CLIP model and the "
        "subject; compare it with `diversity`.",
    ),
]
SheetColumns = Annotated[
    int, Field(ge=2, le=12, json_schema_extra={"format": "int32"}, description="Number of images of each class.")
]
FirstClass = Annotated[
    int,
    Field(
        ge=0,
        lt=MAX_CLASSES,
        json_schema_extra={"format": "int32"},
        description=f"Index of the class in the first row; a sheet has at most {MAX_SHEET_ROWS} rows.",
    ),
]


class ReportImage(Response):
    """An image listed in the report."""

    image_id: str
    url: str
    split: Split
    source: ImageSource
    predicted_class: str = Field(description="The class to whose text CLIP assigns the highest probability.")
    probability: Share = Field(description="CLIP's probability of the image's own class.")


class LabelShare(Response):
    """A label of the pretrained classifier, and for how many images it was the most probable."""

    label: str
    count: int = Field(ge=1)
    share: Share = Field(description="Share of the judged images of the class.")


class ClassReport(Response):
    """One class. Judged figures cover all splits; they are null or empty if no image can be judged."""

    name: str
    text: str = Field(description="The text that CLIP compares the images with: `a photo of a {class}`.")
    num_train: int
    num_validation: int
    num_test: int
    num_synthetic: int
    num_real: int
    num_judged: int
    agreement: Share | None = Field(
        description="Share of the judged images whose most probable class according to CLIP is this one."
    )
    mean_probability: Share | None = Field(
        description="Mean of CLIP's probability of this class over the judged images: the softmax of the logits over "
        "the texts of all classes of the dataset."
    )
    diversity: Annotated[float, Field(ge=0, le=2)] | None = Field(
        description="Mean of 1 - cosine of the CLIP embeddings, over all pairs of judged images; null below two images."
    )
    top_labels: Annotated[list[LabelShare], Field(max_length=NUM_LABELS)] = Field(
        description="The most frequent top-1 labels of the pretrained classifier, most frequent first."
    )
    best: Annotated[list[ReportImage], Field(max_length=NUM_EXAMPLES)] = Field(
        description="The images with the highest probability of this class, highest first."
    )
    worst: Annotated[list[ReportImage], Field(max_length=NUM_EXAMPLES)] = Field(
        description="The images with the lowest probability of this class, lowest first."
    )


class ConfusionCell(Response):
    """The number of images of one class that CLIP assigns to a class, the same or another."""

    class_name: str
    predicted_class: str
    count: int = Field(ge=1)


class ReportPair(Response):
    """Two nearly equal images."""

    image_ids: Annotated[list[str], Field(min_length=2, max_length=2)]
    class_names: Annotated[list[str], Field(min_length=2, max_length=2)]
    splits: Annotated[list[Split], Field(min_length=2, max_length=2)]
    cosine: float = Field(ge=-1, le=1, description="Cosine of their CLIP embeddings.")


class ReportPairs(Response):
    """Pairs of judged images whose cosine reaches `near_duplicate_cosine`."""

    num_pairs: int
    num_images: int = Field(
        description="Images in at least one of the pairs; for leakage, only test and validation images count."
    )
    pairs: Annotated[list[ReportPair], Field(max_length=MAX_PAIRS)] = Field(
        description=f"The closest pairs, at most {MAX_PAIRS}, closest first."
    )


class LeftOutImage(Response):
    """An image that could not be judged."""

    image_id: str
    url: str
    code: str = Field(description="`image_file_missing`, `image_file_damaged`, or `not_judged` (a model failed on it).")


class DatasetReportRead(Response):
    """Counts of a dataset, and figures from CLIP and the pretrained classifier."""

    dataset_id: str
    version: Sha256 = Field(description="Version of the reported content; see `/datasets/{dataset_id}/version`.")
    model: ModelRef = Field(description="The pack whose CLIP model and classifier were used.")
    num_images: int
    num_synthetic: int
    num_real: int
    num_judged: int = Field(description="Images that all figures except counts are computed from.")
    num_left_out: int = Field(
        description="Selected images that could not be judged: the file is missing or damaged, or a model failed."
    )
    left_out: Annotated[list[LeftOutImage], Field(max_length=MAX_LEFT_OUT)] = Field(
        default_factory=list,
        description=f"The first {MAX_LEFT_OUT} of these images; a repair generates lost ones again.",
    )
    is_sample: bool = Field(description="Whether the dataset has more images than `max_images`.")
    agreement: Share = Field(
        description="Share of the judged images whose most probable class according to CLIP is their own."
    )
    diversity: Annotated[float, Field(ge=0, le=2)] | None = Field(
        description="Mean of 1 - cosine of the CLIP embeddings, over all pairs of judged images; null below two images."
    )
    classes: Annotated[list[ClassReport], Field(max_length=MAX_CLASSES)] = Field(description="In the dataset's order.")
    confusion: Annotated[list[ConfusionCell], Field(max_length=MAX_CELLS)] = Field(
        description="The confusion matrix (class against most probable class) without zeros, largest cell first; "
        f"at most {MAX_CELLS} cells."
    )
    num_confusion_cells: int = Field(description="Number of nonzero cells; more than listed if the matrix is cut.")
    near_duplicate_cosine: float = Field(
        ge=0, le=1, description="The threshold that was used. Images with equal pixels are always near-duplicates."
    )
    near_duplicate_cosine_from: ThresholdSource
    near_duplicates: ReportPairs
    leakage: ReportPairs = Field(
        description="The near-duplicates whose images are in two splits: `train` and `test`, `train` and `validation`, "
        "or `validation` and `test`. Such images are not independent of the data that was trained on or chosen by."
    )
