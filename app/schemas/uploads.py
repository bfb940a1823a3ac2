"""Request and response models of uploads into a dataset. Imports no services; pure."""

from pydantic import Field

from app.schemas.common import Label, Request, Response, Split

MAX_FILES = 100


class UploadForm(Request):
    """The form fields besides the files: class and split of the images."""

    class_name: Label
    split: Split


class RefusedFile(Response):
    """The reason why a file was refused."""

    code: str = Field(description="Stable code, e.g. `duplicate_image`.")
    detail: str
    duplicate_of: str | None = Field(description="Id of the dataset's image that the file duplicates.")


class UploadedFile(Response):
    """The result for one file: either `image_id` or `refused` is set."""

    index: int = Field(description="Index among the files of the request, from 0.")
    image_id: str | None
    refused: RefusedFile | None


class UploadRead(Response):
    """The result for each file of a request, in the order of the request."""

    num_accepted: int
    num_refused: int
    files: list[UploadedFile]
