"""Problems (RFC 9457): the form of every 4xx and 5xx response. Imports no services; pure."""

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from app.error_codes import ErrorCode, problem_type
from app.schemas.common import Response


def _current_type(value: str) -> str:
    """Return a recorded `type` as this release writes it; jobs that failed before have one that opens nothing."""
    return problem_type(value.removeprefix("/problems/")) if value.startswith("/problems/") else value


class ProblemField(Response):
    """One fault of an invalid request."""

    pointer: str = Field(description="JSON Pointer to the faulty value; `#query/...` or `#path/...` outside the body.")
    detail: str = Field(description="What is wrong; the value is not repeated.")
    code: str = Field(description="Stable snake_case word; more may come.")


class Problem(Response):
    """The reason why a request failed; members that do not apply are left out."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    type: str = Field(description="Path of the page that explains the code: `/docs/errors/{code}`.")
    title: str = Field(description="The kind of problem, in words.")
    status: int = Field(ge=400, le=599, description="The HTTP status.")
    detail: str = Field(description="What happened in this request, for a person.")
    instance: str = Field(description="The path of the request.")
    code: ErrorCode = Field(description="Stable word to switch on; later versions may add codes.")
    request_id: str = Field(description="Also in the `X-Request-Id` header and in the log.")
    dataset_id: str | None = Field(
        None, description="With `dataset_name_taken`: the id of the dataset that has the name."
    )
    existing_id: str | None = Field(
        None, description="With 409: the id of the dataset, model or job that is in the way, if the caller may know it."
    )
    scope: str | None = Field(None, description="With `scope_missing`: the scope that the API key lacks.")
    errors: list[ProblemField] | None = Field(None, description="The faults of an invalid request (422).")


class JobError(Response):
    """The reason why a job failed: a problem without the fields of a request."""

    type: Annotated[str, AfterValidator(_current_type)]
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemField] | None = Field(
        None, description="The faults. For lost files, `pointer` is the image's URL and `detail` the file's path."
    )
