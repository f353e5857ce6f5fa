"""moto behind a wrapper that lies, fails and stalls as S3 servers do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.servers.s3 import S3Server


class Fault(Enum):
    """What becomes of a request."""

    SLOW_DOWN = "503 SlowDown, nothing done"
    INTERNAL = "500 InternalError, nothing done"
    APPLIED_THEN_INTERNAL = "done, but answered 500"
    DROPPED = "connection closed without an answer, nothing done"
    APPLIED_THEN_DROPPED = "done, but the connection is closed without an answer"
    TRUNCATED = "done, but the answer's body ends half-way"
    GARBLED = "answered 200 with a body that is no XML"
    SLOW = "done, but answered only after `delay_s`"
    DENIED = "403 AccessDenied"
    FULL = "507 InsufficientStorage"


_ANSWERS = {
    Fault.SLOW_DOWN: ("503 Slow Down", "SlowDown"),
    Fault.INTERNAL: ("500 Internal Server Error", "InternalError"),
    Fault.APPLIED_THEN_INTERNAL: ("500 Internal Server Error", "InternalError"),
    Fault.DENIED: ("403 Forbidden", "AccessDenied"),
    Fault.FULL: ("507 Insufficient Storage", "InsufficientStorage"),
}


@dataclass
class FaultyApplication:
    """A WSGI application around moto's. `plan` arms a fault; `requests` records what came in."""

    inner: Callable[..., Iterable[bytes]]
    delay_s: float = 3.0
    requests: list[tuple[str, str]] = field(default_factory=list)
    _planned: list[tuple[Fault, str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, fault: Fault, method: str, *, containing: str = "", times: int = 1) -> None:
        """Do `fault` to the next `times` requests of this method whose URL contains the text."""
        self._planned += [(fault, method, containing)] * times

    @property
    def pending(self) -> int:
        """Planned faults that have not happened."""
        return len(self._planned)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        url = f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
        with self._lock:
            self.requests.append((environ["REQUEST_METHOD"], url))
            fault = self._next(environ["REQUEST_METHOD"], url)
        if fault is None:
            return self.inner(environ, start_response)
        return self._misbehave(fault, environ, start_response)

    def _next(self, method: str, url: str) -> Fault | None:
        for planned in self._planned:
            if planned[1] == method and planned[2] in url:
                self._planned.remove(planned)
                return planned[0]
        return None

    def _misbehave(self, fault: Fault, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if fault in (Fault.APPLIED_THEN_INTERNAL, Fault.APPLIED_THEN_DROPPED):
            list(self.inner(environ, lambda *_: None))
        else:
            self._read_request(fault, environ)
        match fault:
            case Fault.DROPPED | Fault.APPLIED_THEN_DROPPED:
                return _cut(environ)
            case Fault.SLOW:
                time.sleep(self.delay_s)
                return self.inner(environ, start_response)
            case Fault.TRUNCATED:
                return self._half(environ, start_response)
            case Fault.GARBLED:
                start_response("200 OK", [("Content-Type", "application/xml")])
                return [b"<html>this is a captive portal<br>"]
            case _:
                status, code = _ANSWERS[fault]
                start_response(status, [("Content-Type", "application/xml")])
                return [f"<Error><Code>{code}</Code><Message>planned</Message></Error>".encode()]

    def _read_request(self, fault: Fault, environ: dict[str, Any]) -> None:
        # a server reads what is sent before it refuses; what is done all the same, moto reads
        if fault not in (Fault.SLOW, Fault.TRUNCATED):
            with suppress(OSError):
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))

    def _half(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        body = b"".join(self.inner(environ, start_response))
        yield body[: len(body) // 2]
        yield from _cut(environ)


def _cut(environ: dict[str, Any]) -> Iterable[bytes]:
    with suppress(OSError):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return []


@dataclass(frozen=True, slots=True)
class FaultyS3Server(S3Server):
    """moto, and the handle to make it fail."""

    faults: FaultyApplication = field(default=None)  # type: ignore[assignment]


@contextmanager
def faulty_s3_server() -> Iterator[FaultyS3Server]:
    """moto behind the wrapper."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = FaultyApplication(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield FaultyS3Server(f"http://127.0.0.1:{server.server_port}", faults=application)
    finally:
        server.shutdown()
        thread.join(10)
