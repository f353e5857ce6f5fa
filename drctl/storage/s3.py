"""A bucket of any S3-compatible server as storage.

Invariant: bytes are acknowledged with a checksum (Content-MD5) or not at all, and no key is
replaced: by conditional PUT where a probe proved that the server honours it, else by looking first.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Literal, cast

from drctl.domain.plan import SecretReference
from drctl.domain.secret import Secret
from drctl.errors import AlreadyExistsError, StorageError, UnreachableError, UsageError
from drctl.ports import Buffer, Clock, StoredFile
from drctl.storage.keys import CONDITIONAL_PROBE, PROBE_PREFIX, check_key, check_prefix, is_key
from drctl.storage.per_process import PerProcess
from drctl.storage.s3_errors import TAKEN, ErrorCode, s3_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RETAINED = ("config", "keys/", "data/", "index/", "snapshots/")
"""What Object Lock retention is set on. Never locks: one that cannot be deleted stops everybody."""

_PROBED_RETENTION = timedelta(seconds=15)
_ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})


@dataclass(frozen=True, slots=True)
class S3Options:
    """Secrets are references; without them boto3's own chain is used (environment, ~/.aws, role)."""

    bucket: str
    endpoint: str | None = None
    """URL of the server; None is AWS."""
    prefix: str = ""
    region: str | None = None
    access_key: SecretReference | None = None
    secret_key: SecretReference | None = None
    session_token: SecretReference | None = None
    path_style: bool = True
    """`https://server/bucket/key`; False: `https://bucket.server/key`."""
    storage_class: str | None = None
    """Applies to `data/`; the small files that every run reads stay in the standard class."""
    object_lock_days: int | None = None
    """Nobody can remove or replace a file for that long (see RETAINED). The bucket needs Object Lock."""
    object_lock_mode: Literal["governance", "compliance"] = "governance"
    """`compliance` cannot be lifted by anybody, not even by the account's owner."""
    multipart_mib: int = 512
    """Larger files are sent in parts. Most servers ignore conditions on multipart uploads."""
    part_mib: int = 64
    connections: int = 16
    timeout_s: float = 60.0
    ca_bundle: str | None = None
    """File of certificate authorities for a server with its own."""


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """What the references of `S3Options` lead to."""

    access_key: Secret
    secret_key: Secret
    session_token: Secret | None = None


class S3Storage:
    """`ports.Storage` over boto3. Its own retries are off: `wrappers.Retrying` decides on them."""

    Options = S3Options

    def __init__(self, options: S3Options, clock: Clock, credentials: S3Credentials | None = None) -> None:
        if options.storage_class in _ARCHIVES:
            raise UsageError(
                f"storage class {options.storage_class} cannot be read without hours of thawing",
                hint="use STANDARD_IA, INTELLIGENT_TIERING or GLACIER_IR",
            )
        self._options = options
        self._clock = clock
        self._credentials = credentials
        self._prefix = f"{options.prefix.strip('/')}/" if options.prefix.strip("/") else ""
        self._session = PerProcess(_Session)

    @property
    def location(self) -> str:
        """`s3:server/bucket/prefix`."""
        server = (self._options.endpoint or "aws").rpartition("@")[2].removeprefix("https://").rstrip("/")
        return f"s3:{server}/{self._options.bucket}/{self._prefix}".rstrip("/")

    def save(self, key: str, parts: Sequence[Buffer]) -> None:
        """See `ports.Storage.save`."""
        name, size = self._name(key), sum(memoryview(part).nbytes for part in parts)
        arguments = self._arguments(key)
        is_large = size > self._options.multipart_mib << 20
        conditional = self._honours_conditions()
        if (is_large or not conditional) and self._is_there(name):
            raise AlreadyExistsError(f"{self.location}: {key} is there already")
        if conditional:
            arguments["IfNoneMatch"] = "*"
        if is_large:
            self._save_in_parts(key, parts, arguments)
            return
        body = bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
        with self._errors(f"save {key}"):
            self._client().put_object(
                Bucket=self._options.bucket, Key=name, Body=body, ContentMD5=_md5(body), **arguments
            )

    def load(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `ports.Storage.load`."""
        name = self._name(key)
        if length == 0:
            self.stat(key)
            return b""
        asked: dict[str, Any] = {}
        if offset or length is not None:
            asked["Range"] = f"bytes={offset}-" + ("" if length is None else str(offset + length - 1))
        with self._errors(f"load {key}") as outcome:
            outcome.empty_when(ErrorCode.INVALID_RANGE)
            answer = self._client().get_object(Bucket=self._options.bucket, Key=name, **asked)
            with answer["Body"] as body:
                data = body.read()
        if outcome.was_empty:
            return b""
        if len(data) != answer["ContentLength"]:
            raise UnreachableError(f"{self.location}: {key} was cut short: {len(data)} bytes arrived")
        if asked and "ContentRange" not in answer:  # the server ignored the range
            return data[offset:] if length is None else data[offset : offset + length]
        return data

    def stat(self, key: str) -> StoredFile:
        """See `ports.Storage.stat`."""
        with self._errors(f"look at {key}"):
            answer = self._client().head_object(Bucket=self._options.bucket, Key=self._name(key))
        return StoredFile(key, answer["ContentLength"], answer["LastModified"])

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """See `ports.Storage.list`."""
        start = self._prefix + check_prefix(prefix)
        with self._errors(f"list {prefix or 'everything'}"):
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._options.bucket, Prefix=start):
                for entry in page.get("Contents", ()):
                    key = entry["Key"].removeprefix(self._prefix)
                    if is_key(key):
                        yield StoredFile(key, entry["Size"], entry["LastModified"])

    def delete(self, key: str) -> None:
        """See `ports.Storage.delete`. In a versioned bucket the bytes stay until its rules remove
        them."""
        with self._errors(f"delete {key}") as outcome:
            outcome.empty_when(ErrorCode.ABSENT)
            self._client().delete_object(Bucket=self._options.bucket, Key=self._name(key))

    def refuses_overwrite(self) -> bool:
        """See `ports.Storage.refuses_overwrite`: whether PUT with If-None-Match is refused on a key
        that is taken. The key stays there, hidden, for the next proof."""
        return not self._put_probe() or not self._put_probe()

    def retains_files(self) -> bool | None:
        """See `ports.Storage.retains_files`: whether a version under retention for some seconds can be
        removed, with the right to bypass governance if these credentials have it."""
        options, clock = self._options, self._clock
        if options.object_lock_days is None:
            return None
        name, until = f"{self._prefix}{PROBE_PREFIX}{token_hex(16)}", clock.now() + _PROBED_RETENTION
        with self._errors("try Object Lock"):
            body, mode = b"proves that retention holds\n", options.object_lock_mode.upper()
            answer = self._client().put_object(
                Bucket=options.bucket,
                Key=name,
                Body=body,
                ContentMD5=_md5(body),
                ObjectLockMode=cast("Any", mode),
                ObjectLockRetainUntilDate=until,
            )
            version = answer.get("VersionId", "null")
            if self._removes(name, version, bypass=mode == "GOVERNANCE"):
                return False
            clock.sleep((until - clock.now()).total_seconds() + 2)
            self._removes(name, version, bypass=False)  # best effort: it weighs nothing
        return True

    def close(self) -> None:
        """See `ports.Storage.close`."""
        session = self._session.get()
        with session.lock:
            if session.client is not None:
                session.client.close()
            session.client = None

    def __reduce__(self) -> tuple[object, ...]:
        return (S3Storage, (self._options, self._clock, self._credentials))

    # --- one at a time ---

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _arguments(self, key: str) -> dict[str, Any]:
        options, arguments = self._options, dict[str, Any]()
        if options.storage_class is not None and key.startswith("data/"):
            arguments["StorageClass"] = options.storage_class
        if options.object_lock_days is not None and key.startswith(RETAINED):
            arguments["ObjectLockMode"] = options.object_lock_mode.upper()
            until = self._clock.now() + timedelta(days=options.object_lock_days)
            arguments["ObjectLockRetainUntilDate"] = until
        return arguments

    def _honours_conditions(self) -> bool:
        session = self._session.get()
        with session.probing:  # one thread asks, for all
            if session.conditional is None:
                session.conditional = self.refuses_overwrite()
            return session.conditional

    def _put_probe(self) -> bool:
        """Whether a PUT that must not replace was accepted; a server that does not know the
        condition at all counts as one that accepts."""
        name, body = self._prefix + CONDITIONAL_PROBE, b"proves that a taken key is refused\n"
        with self._errors("try a conditional PUT") as outcome:
            outcome.empty_when(ErrorCode.NOT_IMPLEMENTED)
            try:
                self._client().put_object(
                    Bucket=self._options.bucket, Key=name, Body=body, ContentMD5=_md5(body), IfNoneMatch="*"
                )
            except self._client().exceptions.ClientError as exc:
                if exc.response.get("Error", {}).get("Code") in TAKEN:
                    return False
                raise
        return True

    def _removes(self, name: str, version: str, *, bypass: bool) -> bool:
        """Whether a version was there, and is gone after deleting it."""
        where: Any = {"Bucket": self._options.bucket, "Key": name, "VersionId": version}
        client = self._client()
        try:
            client.delete_object(**where | ({"BypassGovernanceRetention": True} if bypass else {}))
        except client.exceptions.ClientError as exc:
            if exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500) >= 500:
                raise
        with self._errors("look for a version") as outcome:
            outcome.empty_when(ErrorCode.ABSENT)
            client.head_object(**where)
        return outcome.was_empty

    def _is_there(self, name: str) -> bool:
        with self._errors(f"look at {name}") as outcome:
            outcome.empty_when(ErrorCode.ABSENT)
            self._client().head_object(Bucket=self._options.bucket, Key=name)
        return not outcome.was_empty

    def _save_in_parts(self, key: str, parts: Sequence[Buffer], arguments: dict[str, Any]) -> None:
        condition = {"IfNoneMatch": arguments.pop("IfNoneMatch")} if "IfNoneMatch" in arguments else {}
        where = {"Bucket": self._options.bucket, "Key": self._name(key)}
        client: Any = self._client()
        with self._errors(f"save {key}"):
            upload = client.create_multipart_upload(**where, **arguments)["UploadId"]
            try:
                done = []
                for number, body in enumerate(_cut(parts, self._options.part_mib << 20), 1):
                    answer = client.upload_part(
                        **where, UploadId=upload, PartNumber=number, Body=body, ContentMD5=_md5(body)
                    )
                    done.append({"PartNumber": number, "ETag": answer["ETag"]})
                client.complete_multipart_upload(
                    **where, UploadId=upload, MultipartUpload={"Parts": done}, **condition
                )
            except BaseException:
                self._abort(where, upload)
                raise

    def _abort(self, where: dict[str, str], upload: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            self._client().abort_multipart_upload(**where, UploadId=upload)  # type: ignore[arg-type]
        except (BotoCoreError, ClientError):
            return  # the first error is the one to report; the bucket's rules clear uploads away

    def _errors(self, doing: str) -> s3_errors:
        return s3_errors(self.location, doing)

    def _client(self) -> S3Client:
        session = self._session.get()
        client = session.client
        if client is None:
            with session.lock:
                client = session.client = session.client or self._connect()
        return client

    def _connect(self) -> S3Client:
        import boto3  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        options, credentials = self._options, self._credentials
        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=options.timeout_s,
            read_timeout=options.timeout_s,
            max_pool_connections=options.connections,
            tcp_keepalive=True,
            signature_version="s3v4",
            s3={"addressing_style": "path" if options.path_style else "virtual"},
            # Content-MD5 is sent instead: many servers do not know the newer checksum headers
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        secrets = dict[str, str]()
        if credentials is not None:
            secrets["aws_access_key_id"] = credentials.access_key.reveal()
            secrets["aws_secret_access_key"] = credentials.secret_key.reveal()
            if credentials.session_token is not None:
                secrets["aws_session_token"] = credentials.session_token.reveal()
        session: Any = boto3.session.Session()
        with self._errors("connect"):
            try:
                client: S3Client = session.client(
                    "s3",
                    endpoint_url=options.endpoint,
                    region_name=options.region or ("us-east-1" if options.endpoint else None),
                    verify=options.ca_bundle,
                    config=config,
                    **secrets,
                )
            except ValueError as exc:
                raise StorageError(f"{self.location}: not an endpoint: {options.endpoint}") from exc
        return client


class _Session:
    """What belongs to one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.client: S3Client | None = None
        self.probing = threading.Lock()
        self.conditional: bool | None = None


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _cut(parts: Sequence[Buffer], size: int) -> Iterator[bytes]:
    pending = bytearray()
    for part in parts:
        view = memoryview(part).cast("B")
        while len(view):
            taken = view[: size - len(pending)]
            pending += taken
            view = view[len(taken) :]
            if len(pending) == size:
                yield bytes(pending)
                pending = bytearray()
    if pending:
        yield bytes(pending)
