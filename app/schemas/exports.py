"""Response models of dataset exports: version and WebDataset shards. Imports no services; pure."""

from typing import Annotated

from pydantic import Field

from app.schemas.common import Response, Sha256, Split

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
    shards: list[ShardRead]
