"""What an S3 server's answer means for a storage, as one table.

Invariant: every botocore exception becomes exactly one of the errors that `ports.Storage` names.
"""

from __future__ import annotations

from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Self

from drctl.errors import AbsentError, AlreadyExistsError, DrctlError, StorageError, UnreachableError

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError


class ErrorCode(Enum):
    """Answers that some calls take as a result."""

    ABSENT = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})
    INVALID_RANGE = frozenset({"InvalidRange", "416"})
    NOT_IMPLEMENTED = frozenset({"NotImplemented", "501"})


TAKEN = frozenset({"PreconditionFailed", "412"})

_MAY_PASS = frozenset(
    {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "TooManyRequests", "Throttling",
     "ThrottlingException", "RequestLimitExceeded", "BadDigest", "IncompleteBody",
     "XAmzContentSHA256Mismatch", "ConditionalRequestConflict", "OperationAborted",
     "500", "502", "503", "504", "429", "408"}
)  # fmt: skip
_NOT_TEMPORARY = frozenset({501, 505, 507})
_CREDENTIALS = "check the access key, the secret key and the rights they have on the bucket"
_SPACE = "free space or raise the quota there, or prune the repository"
_HINTS = {
    "AccessDenied": _CREDENTIALS,
    "403": _CREDENTIALS,
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "ExpiredToken": "the session token has expired",
    "NoSuchBucket": "make the bucket first, with Object Lock if files are to be retained",
    "QuotaExceeded": _SPACE,
    "InsufficientStorage": _SPACE,
    "XMinioStorageFull": _SPACE,
    "507": _SPACE,
    "RequestTimeTooSkewed": "set this machine's clock",
    "InvalidObjectState": "the file lies in an archive class: have the provider restore it first",
    "ObjectLockConfigurationNotFoundError": "the bucket was made without Object Lock",
    "InvalidBucketObjectLockConfiguration": "the bucket was made without Object Lock",
    "PermanentRedirect": "set the bucket's own region and endpoint",
    "AuthorizationHeaderMalformed": "set the bucket's own region",
}
_IS_SERVER_UP = "is the server up? check the endpoint"


class s3_errors:
    """A `with` block around calls of one client: translates what they raise."""

    def __init__(self, location: str, doing: str) -> None:
        self._location, self._doing = location, doing
        self._fine: ErrorCode | None = None
        self.was_empty = False

    def empty_when(self, code: ErrorCode) -> None:
        """Take this answer as a result: leave the block without an error, with `was_empty` set."""
        self._fine = code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or isinstance(error, DrctlError) or not isinstance(error, Exception):
            return False
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
        from botocore.parsers import ResponseParserError  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        if isinstance(error, ClientError):
            if self._fine is not None and error.response.get("Error", {}).get("Code") in self._fine.value:
                self.was_empty = True
                return True
            raise self._answered(error) from error
        if isinstance(error, BotoCoreError):
            raise self._not_answered(error) from error
        if isinstance(error, OSError | HTTPError | ResponseParserError):
            raise UnreachableError(self._text(str(error)), hint=_IS_SERVER_UP) from error
        return False

    def _answered(self, error: ClientError) -> DrctlError:
        detail = error.response.get("Error", {})
        code = detail.get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        text = self._text(f"{code} {detail.get('Message', '')}".strip())
        if code in ErrorCode.ABSENT.value:
            return AbsentError(text)
        if code in TAKEN:
            return AlreadyExistsError(text)
        if code in _HINTS:
            return StorageError(text, hint=_HINTS[code])
        if code in _MAY_PASS or (status >= 500 and status not in _NOT_TEMPORARY):
            return UnreachableError(text, hint="the server is busy or failing; trying later may help")
        return StorageError(text, hint=_HINTS.get(str(status)))

    def _not_answered(self, error: BotoCoreError) -> DrctlError:
        from botocore import exceptions as boto  # noqa: PLC0415

        if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
            return StorageError(self._text("no credentials"), hint=_CREDENTIALS)
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            hint = "give the server's certificate authority as ca_bundle"
            return StorageError(self._text("its certificate cannot be verified"), hint=hint)
        if isinstance(error, boto.HTTPClientError | boto.ConnectionError | boto.IncompleteReadError):
            return UnreachableError(self._text(str(error)), hint=_IS_SERVER_UP)
        return StorageError(self._text(str(error)))

    def _text(self, reason: str) -> str:
        # servers choose these texts: keep them to one printable line
        line = "".join(letter if letter.isprintable() else " " for letter in reason)[:300]
        return f"{self._location}: cannot {self._doing}: {line}"
