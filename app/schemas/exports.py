"""Datasets as they leave the service: their version and their shards."""

from typing import Annotated

from pydantic import Field

from app.schemas.common import Response, Sha256, Split

SamplesPerShard = Annotated[int, Field(ge=10, le=10_000, description="Images of a shard.")]


class DatasetVersionRead(Response):
    """What a dataset holds at the moment."""

    version: Sha256 = Field(description="Hash over every image's split, class and bytes; it changes with them.")
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
    """All shards of a dataset, those of `train` first."""

    version: Sha256
    samples_per_shard: int
    shards: list[ShardRead]
