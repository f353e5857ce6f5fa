"""Many SFTP requests on their way at once, each answer looked at.

Invariant: no answer is dropped. paramiko's own pipelined writes lose the errors of the last hundred
requests (they are registered without an owner and skipped at close), so a full disk would pass for
success; here every write is confirmed before the caller goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from drctl.ports import Buffer

if TYPE_CHECKING:
    from paramiko import Message, SFTPClient, SFTPFile

_REQUEST_BYTES = 32_768  # what every server takes in one packet (draft-ietf-secsh-filexfer-02, 3)
_MOST_ON_THE_WAY = 64  # 2 MiB: OpenSSH's window; a larger one was slower
_OP_UNSUPPORTED = 8


class _Answers:
    """Collects the answers of requests that belong together, in whatever order they come."""

    def __init__(self, sftp: Any) -> None:
        self._sftp = sftp
        self._arrived: dict[int, tuple[int, Message]] = {}

    def ask(self, kind: int, *arguments: object) -> int:
        """Send a request; its number."""
        number: int = self._sftp._async_request(self, kind, *arguments)
        return number

    def wait_for(self, number: int) -> tuple[int, Message]:
        """The answer's type and body."""
        while number not in self._arrived:
            self._sftp._read_response()
        return self._arrived.pop(number)

    def _async_response(self, kind: int, message: Message, number: int) -> None:
        self._arrived[number] = (kind, message)  # paramiko calls this for every answer of ours


def write_all(sftp: SFTPClient, file: SFTPFile, parts: Sequence[Buffer]) -> None:
    """Write the parts one after the other from the start of the file; OSError when the server
    refused any of them."""
    from paramiko.sftp import CMD_WRITE, int64  # noqa: PLC0415

    answers, asked = _Answers(sftp), deque[int]()
    offset = 0
    for piece in _packets(parts):
        asked.append(answers.ask(CMD_WRITE, file.handle, int64(offset), piece))
        offset += len(piece)
        if len(asked) >= _MOST_ON_THE_WAY:
            _confirm(sftp, *answers.wait_for(asked.popleft()))
    while asked:
        _confirm(sftp, *answers.wait_for(asked.popleft()))


def read_range(sftp: SFTPClient, file: SFTPFile, offset: int, length: int) -> bytes:
    """`length` bytes from `offset`; fewer where the file ends earlier."""
    from paramiko.sftp import CMD_DATA, CMD_READ, int64  # noqa: PLC0415

    answers, asked = _Answers(sftp), deque[tuple[int, int, int]]()
    result = bytearray(length)
    todo = deque((at, min(_REQUEST_BYTES, length - at)) for at in range(0, length, _REQUEST_BYTES))
    end = length
    while todo or asked:
        while todo and len(asked) < _MOST_ON_THE_WAY:
            at, size = todo.popleft()
            asked.append((answers.ask(CMD_READ, file.handle, int64(offset + at), size), at, size))
        number, at, size = asked.popleft()
        kind, message = answers.wait_for(number)
        if kind != CMD_DATA:
            try:
                _confirm(sftp, kind, message)
            except EOFError:
                end = min(end, at)
            continue
        data = message.get_string()[:size]
        result[at : at + len(data)] = data
        if 0 < len(data) < size:  # servers may answer with less than was asked
            todo.append((at + len(data), size - len(data)))
    return bytes(result[:end])


def fsync(sftp: SFTPClient, file: SFTPFile) -> bool:
    """Make a file's bytes or a directory's names durable (OpenSSH PROTOCOL, 3.6); False where the
    server has no such call, OSError when it failed."""
    from paramiko.sftp import CMD_EXTENDED  # noqa: PLC0415

    answers = _Answers(sftp)
    _, message = answers.wait_for(answers.ask(CMD_EXTENDED, "fsync@openssh.com", file.handle))
    if message.get_int() == _OP_UNSUPPORTED:
        return False
    message.rewind()
    message.get_int()  # the request's number
    sftp._convert_status(message)  # type: ignore[attr-defined]
    return True


def _confirm(sftp: Any, kind: int, message: Message) -> None:
    from paramiko import SFTPError  # noqa: PLC0415
    from paramiko.sftp import CMD_STATUS  # noqa: PLC0415

    if kind != CMD_STATUS:
        raise SFTPError(f"a status was expected, not packet type {kind}")
    sftp._convert_status(message)


def _packets(parts: Sequence[Buffer]) -> Iterator[bytes]:
    pending = bytearray()
    for part in parts:
        view = memoryview(part).cast("B")
        while len(view):
            taken = view[: _REQUEST_BYTES - len(pending)]
            pending += taken
            view = view[len(taken) :]
            if len(pending) == _REQUEST_BYTES:
                yield bytes(pending)
                pending.clear()
    if pending:
        yield bytes(pending)
