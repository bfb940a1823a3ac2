"""Problems (RFC 9457): the one form of every 4xx and 5xx answer of ours."""

from pydantic import Field

from app.error_codes import ErrorCode
from app.schemas.common import Response


class ProblemField(Response):
    """One fault of an invalid request."""

    pointer: str = Field(description="JSON Pointer of the faulty value; `#query/...`, `#path/...` outside the body.")
    detail: str = Field(description="What is wrong, without repeating the value.")
    code: str = Field(description="Stable snake_case word; more may come.")


class Problem(Response):
    """Why a request was not answered."""

    type: str = Field(description="URI reference of the kind of problem; `/problems/{code}`.")
    title: str = Field(description="The kind of problem, in words.")
    status: int = Field(ge=400, le=599, description="The HTTP status, again.")
    detail: str = Field(description="What happened this time, for a person.")
    instance: str = Field(description="The path that was asked for.")
    code: ErrorCode = Field(description="Stable word to switch on; later versions may add codes.")
    request_id: str = Field(description="Also in the `X-Request-Id` header and in the log.")
    dataset_id: str | None = Field(None, description="With `dataset_name_taken`: the dataset that has the name.")
    errors: list[ProblemField] | None = Field(None, description="The single faults, for 422.")


class JobError(Response):
    """Why a job failed: a problem without the request's fields."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemField] | None = Field(
        None, description="The single faults; for lost files `pointer` is an image's URL and `detail` the file's path."
    )
