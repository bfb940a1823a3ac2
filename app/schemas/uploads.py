"""Real images on their way into a dataset."""

from pydantic import Field

from app.schemas.common import Label, Request, Response, Split

MAX_FILES = 100


class UploadForm(Request):
    """The fields beside the files: where they go."""

    class_name: Label
    split: Split


class RefusedFile(Response):
    """Why a file was not taken."""

    code: str = Field(description="Stable word, e.g. `duplicate_image`.")
    detail: str
    duplicate_of: str | None = Field(description="Id of the image of the dataset that the file repeats.")


class UploadedFile(Response):
    """What became of one file: either `image_id` or `refused` is there."""

    index: int = Field(description="Place among the request's files, from 0.")
    image_id: str | None
    refused: RefusedFile | None


class UploadRead(Response):
    """What became of every file of a request, in its order."""

    num_accepted: int
    num_refused: int
    files: list[UploadedFile]
