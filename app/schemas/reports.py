"""A dataset's report: every figure with its definition."""

from typing import Annotated, Literal

from pydantic import Field

from app.schemas.common import ImageSource, Response, Sha256, Split
from app.schemas.generations import ModelRef

MAX_JUDGED, MAX_PAIRS, MAX_CELLS, MAX_CLASSES = 10_000, 100, 1_000, 1_000
MAX_LEFT_OUT = 20
NUM_EXAMPLES, NUM_LABELS = 5, 5
MAX_SHEET_ROWS = 50

Share = Annotated[float, Field(ge=0, le=1)]
MaxImages = Annotated[
    int,
    Field(
        ge=1,
        le=MAX_JUDGED,
        json_schema_extra={"format": "int32"},
        description="Images to judge. Of a larger dataset a sample is judged: in each class and split the images whose "
        "files have the smallest hashes, in turn; always the same ones for the same content.",
    ),
]
NearDuplicateCosine = Annotated[
    float,
    Field(
        ge=0.5,
        le=1,
        description="Cosine of two images' CLIP embeddings from which on they are near-duplicates; default: the loaded "
        "pack's own, which tells copies from other images of the same prompt. What looks alike depends on the CLIP "
        "model and the subject: compare it with `diversity`.",
    ),
]
SheetColumns = Annotated[
    int, Field(ge=2, le=12, json_schema_extra={"format": "int32"}, description="Images of each class.")
]
FirstClass = Annotated[
    int,
    Field(
        ge=0,
        lt=MAX_CLASSES,
        json_schema_extra={"format": "int32"},
        description=f"Index of the class in the first row; a sheet has {MAX_SHEET_ROWS} rows at most.",
    ),
]


class ReportImage(Response):
    """An image that the report names."""

    image_id: str
    url: str
    split: Split
    source: ImageSource
    predicted_class: str = Field(description="The class whose text CLIP finds most probable.")
    probability: Share = Field(description="CLIP's probability of the class that the image is in.")


class LabelShare(Response):
    """A label of the pretrained classifier, and how often it came first."""

    label: str
    count: int = Field(ge=1)
    share: Share = Field(description="Of the judged images of the class.")


class ClassReport(Response):
    """One class. What is judged counts both splits; it is null, or empty, where there is no image to judge."""

    name: str
    text: str = Field(description="What CLIP compares the images with: `a photo of a {class}`.")
    num_train: int
    num_test: int
    num_synthetic: int
    num_real: int
    num_judged: int
    agreement: Share | None = Field(
        description="Share of the judged images whose most probable class, by CLIP, is this one."
    )
    mean_probability: Share | None = Field(
        description="Mean over the judged images of CLIP's probability of this class: the softmax of the logits over "
        "the texts of all classes of the dataset."
    )
    diversity: Annotated[float, Field(ge=0, le=2)] | None = Field(
        description="Mean of 1 - cosine of the CLIP embeddings, over all pairs of judged images; null below two images."
    )
    top_labels: Annotated[list[LabelShare], Field(max_length=NUM_LABELS)] = Field(
        description="The pretrained classifier's most frequent first choices, the most frequent first."
    )
    best: Annotated[list[ReportImage], Field(max_length=NUM_EXAMPLES)] = Field(
        description="The images with the highest probability of this class, the highest first."
    )
    worst: Annotated[list[ReportImage], Field(max_length=NUM_EXAMPLES)] = Field(
        description="The images with the lowest probability of this class, the lowest first."
    )


class ConfusionCell(Response):
    """Images of one class that CLIP takes for one class, the same or another."""

    class_name: str
    predicted_class: str
    count: int = Field(ge=1)


class ReportPair(Response):
    """Two images that are nearly equal."""

    image_ids: Annotated[list[str], Field(min_length=2, max_length=2)]
    class_names: Annotated[list[str], Field(min_length=2, max_length=2)]
    splits: Annotated[list[Split], Field(min_length=2, max_length=2)]
    cosine: float = Field(ge=-1, le=1, description="Of their CLIP embeddings.")


class ReportPairs(Response):
    """Pairs of judged images whose cosine reaches `near_duplicate_cosine`."""

    num_pairs: int
    num_images: int = Field(description="Images in at least one of the pairs; of leakage, test images alone.")
    pairs: Annotated[list[ReportPair], Field(max_length=MAX_PAIRS)] = Field(
        description=f"The closest pairs, at most {MAX_PAIRS}, the closest first."
    )


class LeftOutImage(Response):
    """An image that could not be judged."""

    image_id: str
    url: str
    code: str = Field(description="`image_file_missing`, `image_file_damaged`, or `not_judged`: a model failed on it.")


class DatasetReportRead(Response):
    """What a dataset holds, and what CLIP and the pretrained classifier say of it."""

    dataset_id: str
    version: Sha256 = Field(description="Of the content that was counted; see `/datasets/{dataset_id}/version`.")
    model: ModelRef = Field(description="The pack whose CLIP model and classifier judged.")
    num_images: int
    num_synthetic: int
    num_real: int
    num_judged: int = Field(description="Images that figures other than counts rest on.")
    num_left_out: int = Field(
        description="Images that were to be judged and could not be: the file is gone or damaged, or a model failed."
    )
    left_out: Annotated[list[LeftOutImage], Field(max_length=MAX_LEFT_OUT)] = Field(
        default_factory=list, description=f"The first {MAX_LEFT_OUT} of them; a repair draws lost ones again."
    )
    is_sample: bool = Field(description="Whether the dataset has more images than `max_images`.")
    agreement: Share = Field(description="Share of the judged images whose most probable class, by CLIP, is their own.")
    diversity: Annotated[float, Field(ge=0, le=2)] | None = Field(
        description="As of a class, over all pairs of judged images."
    )
    classes: Annotated[list[ClassReport], Field(max_length=MAX_CLASSES)] = Field(description="In the dataset's order.")
    confusion: Annotated[list[ConfusionCell], Field(max_length=MAX_CELLS)] = Field(
        description="The confusion matrix without its zeros: class against most probable class, most images first; "
        f"at most {MAX_CELLS} cells."
    )
    num_confusion_cells: int = Field(description="Cells that are not 0; more than are listed if the matrix is cut.")
    near_duplicate_cosine: float = Field(
        ge=0, le=1, description="The threshold that was used. Images of the same pixels count whatever it is."
    )
    near_duplicate_cosine_from: Literal["request", "pack"] = Field(
        description="Where it comes from: the request, or what the loaded pack knows of its CLIP model."
    )
    near_duplicates: ReportPairs
    leakage: ReportPairs = Field(
        description="The near-duplicates of which one image is in `train` and the other in `test`: what a model "
        "trained here has as good as seen before it is tested."
    )
