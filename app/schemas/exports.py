"""Response models of dataset exports: version, WebDataset shards, COCO annotations. Imports no services; pure."""

from typing import Annotated, Literal

from pydantic import Field

from app.schemas.common import ImageFormat, Response, Sha256, Split, UtcTime

SamplesPerShard = Annotated[int, Field(ge=10, le=10_000, description="Maximum number of images in a shard.")]


class DatasetVersionRead(Response):
    """The current content of a dataset as a hash and counts."""

    version: Sha256 = Field(description="Hash of the split, class and bytes of every image.")
    num_images: int
    num_synthetic: int
    num_real: int


class ShardRead(Response):
    """One WebDataset shard."""

    index: int
    name: str
    url: str
    split: Split
    num_samples: int


class ShardsRead(Response):
    """All shards of a dataset: those of `train`, then of `validation`, then of `test`."""

    version: Sha256
    samples_per_shard: int
    image_key: ImageFormat = Field(
        description="The key of the image in every sample of every shard, and the ending of its file: the dataset's "
        "`output_format`. An uploaded image of another format has it too; readers tell formats by the content, and "
        "`format` in the sample's `json` has the format."
    )
    shards: list[ShardRead]


class CocoInfo(Response):
    """What the annotations describe."""

    description: str = Field(description="The dataset's name.")
    version: Sha256
    date_created: UtcTime


class CocoCategory(Response):
    """A class; `id` is its index in the dataset, as in `class_index` and in trained models."""

    id: int = Field(ge=0)
    name: str
    supercategory: Literal[""]


class CocoImage(Response):
    """An image; `file_name` is its path in the unpacked archive."""

    id: int = Field(ge=1)
    file_name: str
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class CocoAnnotation(Response):
    """The class of an image, as an annotation of the whole image."""

    id: int = Field(ge=1)
    image_id: int = Field(ge=1)
    category_id: int = Field(ge=0)
    bbox: Annotated[list[int], Field(min_length=4, max_length=4)] = Field(description="`[0, 0, width, height]`.")
    area: int = Field(ge=1)
    iscrowd: Literal[0]
    segmentation: Annotated[list[list[float]], Field(max_length=0)]


class CocoRead(Response):
    """The images of a dataset, or of one split, with one annotation each: its class."""

    info: CocoInfo
    licenses: Annotated[list[str], Field(max_length=0)]
    categories: list[CocoCategory] = Field(description="In the dataset's order.")
    images: list[CocoImage]
    annotations: list[CocoAnnotation]
