"""One opened file of another host, read ahead over SFTP.

Invariant: bytes come in order and without a gap, however the server splits its answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from drctl.ports import Entry
from drctl.sources.sftp_session import (
    ATTRIBUTES,
    CLOSE,
    DATA,
    FSTAT,
    READ,
    SftpSession,
    entry_from,
    long_integer,
)

_REQUEST_BYTES = 32_768  # what every server gives in one packet (draft-ietf-secsh-filexfer-02, 3)
_MOST_ON_THE_WAY = 64  # 2 MiB: OpenSSH's window


class RemoteReader:
    """Implements `ports.Reader`; for the thread that opened it."""

    def __init__(self, session: SftpSession, handle: bytes, opened: Entry) -> None:
        self._session = session
        self._handle: bytes | None = handle
        self._opened = opened
        self._asked: deque[tuple[int, int, int]] = deque()  # number, offset, size
        self._ask_from = 0
        self._rest = memoryview(b"")
        self._ended = False
        self._last_look: int | None = None
        self._ask_ahead()

    def readinto(self, buffer: memoryview, /) -> int:
        filled = 0
        while filled < len(buffer):
            if not self._rest and not self._receive():
                break
            part = self._rest[: len(buffer) - filled]
            buffer[filled : filled + len(part)] = part
            filled += len(part)
            self._rest = self._rest[len(part) :]
        return filled

    def hole(self, _offset: int) -> int:
        """SFTP does not tell."""
        return 0

    def skip(self, count: int) -> None:
        """Reads over them: nobody skips what is not known to be a hole."""
        view = memoryview(bytearray(_REQUEST_BYTES))
        while count and (taken := self.readinto(view[: min(count, len(view))])):
            count -= taken

    def changed(self) -> bool:
        """By size and mtime, which SFTP tells in whole seconds."""
        if not self._ended or self._last_look is None:
            number = self._session.ask(FSTAT, self._handle)
        else:
            number, self._last_look = self._last_look, None
        message = self._session.answer(number, ATTRIBUTES)
        now = entry_from(self._opened.name, message) if message is not None else None
        return now is None or (now.size, now.mtime_ns) != (self._opened.size, self._opened.mtime_ns)

    def extended_attributes(self) -> Sequence[tuple[bytes, bytes]]:
        """SFTP has none."""
        return ()

    def close(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            # what is still on its way is dropped with the session object
            self._session.forget(CLOSE, handle)

    def _ask_ahead(self) -> None:
        """Up to the known end and one request beyond it, which finds what was appended; behind it a
        look at the file, so that `changed` costs no waiting of its own."""
        end = self._opened.size
        while self._ask_from < end and len(self._asked) < _MOST_ON_THE_WAY:
            size = min(_REQUEST_BYTES, end - self._ask_from)
            self._ask(self._ask_from, size)
            self._ask_from += size
        if self._ask_from == end and self._last_look is None:
            self._ask(end, _REQUEST_BYTES)
            self._last_look = self._session.ask(FSTAT, self._handle)

    def _ask(self, offset: int, size: int, *, first: bool = False) -> None:
        number = self._session.ask(READ, self._handle, long_integer(offset), size)
        (self._asked.appendleft if first else self._asked.append)((number, offset, size))

    def _receive(self) -> bool:
        """Whether more bytes came."""
        if self._ended:
            return False
        self._ask_ahead()
        number, offset, size = self._asked.popleft()
        message = self._session.answer(number, DATA)
        data = message.get_string()[:size] if message is not None else b""
        if not data:
            self._ended = True
            return False
        if offset >= self._opened.size:  # it grew since it was opened: from here on one by one
            self._ask(offset + len(data), _REQUEST_BYTES)
        elif len(data) < size:  # servers may answer with less than was asked
            self._ask(offset + len(data), size - len(data), first=True)
        self._rest = memoryview(data)
        return True
