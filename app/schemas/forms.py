"""The multipart forms, as the OpenAPI file describes them. Imports no services; pure.

The routes read files as streams, not with these models, and the text fields with those of `judging` and `uploads`.
`format: binary` is what generators of clients know from OpenAPI 3.0, `contentMediaType` is OpenAPI 3.1's own word. A
form has no null, so a field that may be left out has a default from a factory, which the schema does not repeat.
"""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, WithJsonSchema

from app.schemas.common import Label, Request, Split, exactly_one
from app.schemas.judging import MAX_IMAGES, Labels, Nearest, TopK
from app.schemas.uploads import MAX_FILES

# How the parts of a form are sent: files with their type, a list as a repeated field.
FORM_ENCODING: dict[str, Any] = {
    **{name: {"contentType": "image/png, image/jpeg, image/webp"} for name in ("image", "images", "files")},
    "labels": {"style": "form", "explode": True},
}
ImageFile = Annotated[
    bytes,
    WithJsonSchema(
        {
            "type": "string",
            "format": "binary",
            "contentMediaType": "application/octet-stream",
            "description": "PNG, JPEG or WebP.",
        }
    ),
]


class _ImagesForm(Request):
    image: ImageFile = Field(default_factory=bytes, description="One image; the answer is `single`.")
    images: Annotated[list[ImageFile], Field(min_length=1, max_length=MAX_IMAGES)] = Field(
        default_factory=list, description="Instead of `image`: one or more; the answer is `batch`."
    )

    model_config = ConfigDict(json_schema_extra=exactly_one("image", "images"))


class ClipScoreForm(_ImagesForm):
    """One image or several, and the labels to score them against."""

    labels: Labels
    template: Annotated[str, Field(max_length=200)] = Field(
        default_factory=str, description="Text with `{}`, which each label replaces; default: the label alone."
    )


class ClassifyForm(_ImagesForm):
    """One image or several, and how to classify them."""

    top_k: TopK = Field(5, description="Number of predictions; limited to the number of classes.")
    model: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        default_factory=str, description="Id or name of a trained model, or `photo`; default: the pack's classifier."
    )
    explain: bool = Field(False, description="Whether to return `explanation_png_b64`; only with `image`.")
    nearest: Nearest = Field(
        default_factory=int,
        description="Of a trained model: how many similar training images to return; default: none.",
    )


class UploadImagesForm(Request):
    """Real images for one class and split of a dataset."""

    files: Annotated[list[ImageFile], Field(min_length=1, max_length=MAX_FILES)]
    class_name: Annotated[Label, Field(description="A class of the dataset.")]
    split: Split
