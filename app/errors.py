"""Every error that Foxhound raises on purpose.

Knows HTTP status numbers and nothing of any framework. The class docstring's first line is the default
detail, `title` names the kind of problem, and `code` is the stable word that clients switch on.

AppError
├── Malformed             400  malformed_request
├── NotFound              404  not_found
├── NotAcceptable         406  not_acceptable
├── Conflict              409  conflict (or a more exact code)
├── FileLost              410  file_lost (or a more exact code: image_file_missing, image_file_damaged,
│                              model_file_missing, model_file_damaged)
├── PayloadTooLarge       413  payload_too_large
├── UnsupportedImage      415  unsupported_image
├── UnsupportedBody       415  unsupported_media_type
├── Invalid               422  invalid_request (or a more exact code), with pointers
├── QueueFull             503  queue_full + Retry-After
├── ModelNotReady         503  model_not_ready + Retry-After
├── Unavailable           503  unavailable + Retry-After
│   └── DatabaseUnavailable    database_unavailable
├── InferenceFailed       500  inference_failed
└── StorageFull           507  storage_full
    └── DatabaseFull           storage_full, and the work waits for room
"""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from app.error_codes import ErrorCode

# How an operating system says that there is no room: the disk, the quota, or the largest file allowed.
NO_ROOM_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with a request.

    Attributes:
        pointer: JSON Pointer (RFC 6901) into the body, or `#query/limit`-like for other places.
        detail: What is wrong, in words, without repeating the value.
        code: Stable snake_case word.
    """

    pointer: str
    detail: str
    code: str


class AppError(Exception):
    """The request could not be completed."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Request failed"
    default_code: ClassVar[ErrorCode] = ErrorCode.INTERNAL_ERROR

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: str | None = None,
        errors: Sequence[FieldError] = (),
        retry_after_s: int | None = None,
        members: Mapping[str, str] | None = None,
    ) -> None:
        """Describe this occurrence.

        Args:
            detail: What happened, for a person; default: the first line of the class docstring.
            code: Stable word; default: the class's own.
            errors: The single faults of an invalid request.
            retry_after_s: Whole seconds after which a retry makes sense, >= 1.
            members: Further members of the problem (RFC 9457, 3.2), such as the id of what is in the way.
        """
        self.detail = detail or (type(self).__doc__ or "").strip().splitlines()[0]
        self.code = str(code or self.default_code)  # a plain string, for whatever stores or validates it
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s
        self.members = dict(members or {})
        super().__init__(self.detail)


class Malformed(AppError):
    """The request is not well-formed."""

    status = 400
    title = "Malformed request"
    default_code = ErrorCode.MALFORMED_REQUEST


class NotFound(AppError):
    """There is nothing here under this id."""

    status = 404
    title = "Not found"
    default_code = ErrorCode.NOT_FOUND


class NotAcceptable(AppError):
    """The answer cannot be given in the form asked for."""

    status = 406
    title = "Not acceptable"
    default_code = ErrorCode.NOT_ACCEPTABLE


class Conflict(AppError):
    """The state of the resource does not allow this."""

    status = 409
    title = "Conflict"
    default_code = ErrorCode.CONFLICT


class FileLost(AppError):
    """A stored file is gone, or is not what its record says."""

    status = 410
    title = "File lost"
    default_code = ErrorCode.FILE_LOST


class PayloadTooLarge(AppError):
    """The request is larger than this service accepts."""

    status = 413
    title = "Payload too large"
    default_code = ErrorCode.PAYLOAD_TOO_LARGE


class UnsupportedImage(AppError):
    """The file is not a PNG, JPEG or WebP image."""

    status = 415
    title = "Unsupported image"
    default_code = ErrorCode.UNSUPPORTED_IMAGE


class UnsupportedBody(AppError):
    """The body's Content-Type is not one that this route reads."""

    status = 415
    title = "Unsupported media type"
    default_code = ErrorCode.UNSUPPORTED_MEDIA_TYPE


class Invalid(AppError):
    """The request is well-formed but invalid."""

    status = 422
    title = "Invalid request"
    default_code = ErrorCode.INVALID_REQUEST

    @classmethod
    def field(cls, pointer: str, detail: str, code: str) -> "Invalid":
        """Build the error for one faulty field, with the same code on the problem itself."""
        return cls(detail, code=code, errors=[FieldError(pointer, detail, code)])


class QueueFull(AppError):
    """The service is at its capacity; the request was not taken."""

    status = 503
    title = "Queue full"
    default_code = ErrorCode.QUEUE_FULL


class ModelNotReady(AppError):
    """The model that this request needs is not loaded."""

    status = 503
    title = "Model not ready"
    default_code = ErrorCode.MODEL_NOT_READY


class Unavailable(AppError):
    """The service cannot do this at the moment."""

    status = 503
    title = "Temporarily unavailable"
    default_code = ErrorCode.UNAVAILABLE


class DatabaseUnavailable(Unavailable):
    """The database does not answer."""

    default_code = ErrorCode.DATABASE_UNAVAILABLE


class InferenceFailed(AppError):
    """The model failed on this request."""

    status = 500
    title = "Inference failed"
    default_code = ErrorCode.INFERENCE_FAILED


class StorageFull(AppError):
    """There is no room left to store the result."""

    status = 507
    title = "Storage full"
    default_code = ErrorCode.STORAGE_FULL


class DatabaseFull(StorageFull):
    """The database has no room left.

    A job that meets it waits for room: it could not even record its failure.
    """
