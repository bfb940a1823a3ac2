"""Problems (RFC 9457): the form of every 4xx and 5xx response. Imports no services; pure."""

from pydantic import ConfigDict, Field

from app.error_codes import ErrorCode
from app.schemas.common import Response


class ProblemField(Response):
    """One fault of an invalid request."""

    pointer: str = Field(description="JSON Pointer to the faulty value; `#query/...` or `#path/...` outside the body.")
    detail: str = Field(description="What is wrong; the value is not repeated.")
    code: str = Field(description="Stable snake_case word; more may come.")


class Problem(Response):
    """The reason why a request failed; members that do not apply are left out."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    type: str = Field(description="URI reference of the kind of problem: `/problems/{code}`.")
    title: str = Field(description="The kind of problem, in words.")
    status: int = Field(ge=400, le=599, description="The HTTP status.")
    detail: str = Field(description="What happened in this request, for a person.")
    instance: str = Field(description="The path of the request.")
    code: ErrorCode = Field(description="Stable word to switch on; later versions may add codes.")
    request_id: str = Field(description="Also in the `X-Request-Id` header and in the log.")
    dataset_id: str | None = Field(
        None, description="With `dataset_name_taken`: the id of the dataset that has the name."
    )
    scope: str | None = Field(None, description="With `scope_missing`: the scope that the API key lacks.")
    errors: list[ProblemField] | None = Field(None, description="The faults of an invalid request (422).")


class JobError(Response):
    """The reason why a job failed: a problem without the fields of a request."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemField] | None = Field(
        None, description="The faults. For lost files, `pointer` is the image's URL and `detail` the file's path."
    )
