"""Every error that Foxhound raises on purpose.

Each class has an HTTP status, a `title` that names the kind of problem, a default `detail` for a person and a default
`code`, the stable word that clients switch on. The module imports no framework; any thread or process may use it.

AppError
├── Malformed             400  malformed_request
├── Unauthorized          401  key_required (or key_invalid)
├── Forbidden             403  scope_missing
├── CrossSiteRefused      403  cross_site_refused
├── NotFound              404  not_found
├── NotAcceptable         406  not_acceptable
├── Conflict              409  conflict (or a more exact code)
├── FileLost              410  file_lost (or a more exact code: image_file_missing, image_file_damaged,
│                              model_file_missing, model_file_damaged)
├── PayloadTooLarge       413  payload_too_large
├── UnsupportedImage      415  unsupported_image
├── UnsupportedBody       415  unsupported_media_type
├── HostNotAllowed        421  host_not_allowed
├── Invalid               422  invalid_request (or a more exact code), with pointers
├── RateLimited           429  rate_limited + Retry-After
├── QuotaExceeded         429  quota_exceeded
├── QueueFull             503  queue_full + Retry-After
├── ModelNotReady         503  model_not_ready + Retry-After
├── Unavailable           503  unavailable + Retry-After
│   └── DatabaseUnavailable    database_unavailable
├── InferenceFailed       500  inference_failed
├── ExportFailed          500  export_failed
└── StorageFull           507  storage_full
    └── DatabaseFull           storage_full; jobs wait until there is room
"""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from app.error_codes import ErrorCode

# The errno values that mean "no room": a full disk, a full quota, or a file over the size limit.
NO_ROOM_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with a request.

    Attributes:
        pointer: JSON Pointer (RFC 6901) into the body, or like `#query/limit` outside the body.
        detail: A sentence for a person; it says what is wrong and does not repeat the value.
        code: Stable snake_case word.
    """

    pointer: str
    detail: str
    code: str


class AppError(Exception):
    """Base class of all errors that the API answers as a problem (RFC 9457)."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Request failed"
    default_code: ClassVar[ErrorCode] = ErrorCode.INTERNAL_ERROR
    default_detail: ClassVar[str] = "The request could not be completed."

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: str | None = None,
        errors: Sequence[FieldError] = (),
        retry_after_s: int | None = None,
        members: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Describe this occurrence.

        Args:
            detail: What happened, for a person; default: `default_detail` of the class.
            code: Stable word; default: `default_code` of the class.
            errors: The faults of an invalid request, one entry each.
            retry_after_s: Whole seconds after which a retry makes sense, >= 1.
            members: Further members of the problem (RFC 9457, 3.2), such as the id of a conflicting resource.
            headers: Further fields of the answer.
        """
        self.detail = detail or self.default_detail
        self.code = str(code or self.default_code)  # a plain string: databases and validators need not accept the enum
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s
        self.members = dict(members or {})
        self.headers = dict(headers or {})
        super().__init__(self.detail)


class Malformed(AppError):
    """The request cannot be parsed: JSON, form, cursor or a header."""

    status = 400
    title = "Malformed request"
    default_code = ErrorCode.MALFORMED_REQUEST
    default_detail = "The request is not well-formed."


class CrossSiteRefused(AppError):
    """A browser sends the request for a page whose origin is not allowed."""

    status = 403
    title = "Cross-site request refused"
    default_code = ErrorCode.CROSS_SITE_REFUSED
    default_detail = (
        "A page of another origin may not send this request. If the page is yours, list its origin in "
        "FOXHOUND_CORS_ORIGINS."
    )


class Unauthorized(AppError):
    """The request has no API key, or one that is not valid."""

    status = 401
    title = "Not authenticated"
    default_code = ErrorCode.KEY_REQUIRED
    default_detail = "Send an API key as `Authorization: Bearer KEY` or as `X-API-Key: KEY`."


class Forbidden(AppError):
    """The API key does not have the scope that the route needs."""

    status = 403
    title = "Not allowed"
    default_code = ErrorCode.SCOPE_MISSING
    default_detail = "The API key does not have the scope that this needs."


class NotFound(AppError):
    """The resource does not exist."""

    status = 404
    title = "Not found"
    default_code = ErrorCode.NOT_FOUND
    default_detail = "There is nothing here under this id."


class NotAcceptable(AppError):
    """No media type of the `Accept` header is available."""

    status = 406
    title = "Not acceptable"
    default_code = ErrorCode.NOT_ACCEPTABLE
    default_detail = "The answer cannot be given in the form asked for."


class Conflict(AppError):
    """The current state of the resource does not allow the operation."""

    status = 409
    title = "Conflict"
    default_code = ErrorCode.CONFLICT
    default_detail = "The state of the resource does not allow this."


class FileLost(AppError):
    """A stored file is missing, or differs from its record."""

    status = 410
    title = "File lost"
    default_code = ErrorCode.FILE_LOST
    default_detail = "A stored file is gone, or is not what its record says."


class PayloadTooLarge(AppError):
    """The body or the image exceeds a limit of size."""

    status = 413
    title = "Payload too large"
    default_code = ErrorCode.PAYLOAD_TOO_LARGE
    default_detail = "The request is larger than this service accepts."


class UnsupportedImage(AppError):
    """The file's format is not PNG, JPEG or WebP."""

    status = 415
    title = "Unsupported image"
    default_code = ErrorCode.UNSUPPORTED_IMAGE
    default_detail = "The file is not a PNG, JPEG or WebP image."


class UnsupportedBody(AppError):
    """The route does not accept the Content-Type of the body."""

    status = 415
    title = "Unsupported media type"
    default_code = ErrorCode.UNSUPPORTED_MEDIA_TYPE
    default_detail = "The body's Content-Type is not one that this route reads."


class HostNotAllowed(AppError):
    """The request is for a host under which the node does not answer."""

    status = 421
    title = "Host not allowed"
    default_code = ErrorCode.HOST_NOT_ALLOWED
    default_detail = (
        "The node does not answer under the Host of this request. Use its address, or list the name in "
        "FOXHOUND_ALLOWED_HOSTS."
    )


class Invalid(AppError):
    """The request is well-formed, but values in it are invalid; `errors` lists them."""

    status = 422
    title = "Invalid request"
    default_code = ErrorCode.INVALID_REQUEST
    default_detail = "The request is well-formed but invalid."

    @classmethod
    def field(cls, pointer: str, detail: str, code: str) -> "Invalid":
        """Return the error for one faulty field; the problem and its only fault have the same code."""
        return cls(detail, code=code, errors=[FieldError(pointer, detail, code)])


class RateLimited(AppError):
    """The caller sends more requests than its share, at once or in a minute."""

    status = 429
    title = "Too many requests"
    default_code = ErrorCode.RATE_LIMITED
    default_detail = "The caller sends more requests than its share."


class QuotaExceeded(AppError):
    """The caller has used up a quota."""

    status = 429
    title = "Quota exceeded"
    default_code = ErrorCode.QUOTA_EXCEEDED
    default_detail = "The quota of the caller is used up."


class QueueFull(AppError):
    """A queue or pool has reached its limit; the work was not accepted."""

    status = 503
    title = "Queue full"
    default_code = ErrorCode.QUEUE_FULL
    default_detail = "The service is at its capacity; the request was not taken."


class ModelNotReady(AppError):
    """The required model is loading or failed to load."""

    status = 503
    title = "Model not ready"
    default_code = ErrorCode.MODEL_NOT_READY
    default_detail = "The model that this request needs is not loaded."


class Unavailable(AppError):
    """The operation is not possible at the moment; a retry may succeed."""

    status = 503
    title = "Temporarily unavailable"
    default_code = ErrorCode.UNAVAILABLE
    default_detail = "The service cannot do this at the moment."


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached, is read-only or stays locked."""

    default_code = ErrorCode.DATABASE_UNAVAILABLE
    default_detail = "The database does not answer."


class InferenceFailed(AppError):
    """The model raised an error while it computed this request."""

    status = 500
    title = "Inference failed"
    default_code = ErrorCode.INFERENCE_FAILED
    default_detail = "The model failed on this request."


class ExportFailed(AppError):
    """A model's file could not be made, or it computes something else than the model."""

    status = 500
    title = "Export failed"
    default_code = ErrorCode.EXPORT_FAILED
    default_detail = "The file could not be made. See the log of the service."


class StorageFull(AppError):
    """The disk or the quota of the data folder is full."""

    status = 507
    title = "Storage full"
    default_code = ErrorCode.STORAGE_FULL
    default_detail = "There is no room left to store the result."


class DatabaseFull(StorageFull):
    """The database has no room left.

    A job that gets this error waits until there is room, because its failure could not be recorded either.
    """

    default_detail = "The database has no room left."
