"""Labelled datasets."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.schemas.common import Name, NegativePrompt, Prompt, Request, Response, Seed, UtcTime, VisibleText
from app.schemas.generations import GenerationSettings, ModelRef
from app.schemas.jobs import Progress

DatasetStatus = Literal["empty", "queued", "generating", "ready", "incomplete", "failed", "cancelled"]
PerClass = Annotated[int, Field(strict=True, ge=0, le=100_000)]


class DatasetClass(Request):
    """A class and the prompts that draw it, used in turn."""

    name: Annotated[VisibleText, Field(max_length=200, description="Any text; the folder is a safe form of it.")]
    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=100)]
    negative_prompt: NegativePrompt = ""


class DatasetCreate(Request):
    """A dataset to generate: its classes and how many images of each."""

    name: Name
    seed: Seed | None = Field(None, description="Every image's seed follows from it; default: one is drawn.")
    classes: Annotated[list[DatasetClass], Field(min_length=2, max_length=1_000)]
    train_per_class: PerClass = 40
    test_per_class: PerClass = 10
    generation: GenerationSettings = Field(default_factory=GenerationSettings)

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "fox-dog",
                    "seed": 7,
                    "classes": [
                        {"name": "fox", "prompts": ["a watercolor painting of a red fox"]},
                        {"name": "dog", "prompts": ["a watercolor painting of a golden retriever"]},
                    ],
                    "train_per_class": 40,
                    "test_per_class": 10,
                }
            ]
        }
    )


class DatasetClassRead(Response):
    """A class of a dataset, its folder and how many images it has."""

    name: str
    folder: str
    prompts: list[str]
    negative_prompt: str
    num_train: int
    num_test: int


class DatasetRead(Response):
    """A dataset and how far it is."""

    id: str
    name: str
    created_at: UtcTime
    status: DatasetStatus = Field(description="Only `ready` trains.")
    seed: int
    classes: list[DatasetClassRead]
    train_per_class: int
    test_per_class: int
    generation: GenerationSettings
    model: ModelRef | None = Field(description="The pack that draws the images.")
    num_images: int
    progress: Progress
    job_id: str | None
