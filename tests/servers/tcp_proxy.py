"""A TCP proxy that misbehaves on request: black hole, reset, truncation, flipped bytes."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum


class Fault(Enum):
    """What happens to a connection once `after_bytes` have gone through in the chosen direction."""

    BLACK_HOLE = "nothing is passed on any more, in neither direction, and nobody is told"
    RESET = "both ends get a reset"
    CLOSE = "both ends see a regular end"
    FLIP = "one byte is flipped, once"


class TcpProxy:
    """Forwards to one port. `plan` arms one fault for the connections that follow or are open."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._fault: Fault | None = None
        self._upwards = True
        self._left = 0
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def plan(self, fault: Fault, *, after_bytes: int = 0, upwards: bool = True) -> None:
        """Do `fault` after so many more bytes from the client to the server (`upwards`) or back."""
        with self._lock:
            self._fault, self._left, self._upwards = fault, after_bytes, upwards

    def heal(self) -> None:
        """Forward again. Connections that a black hole has swallowed stay silent."""
        with self._lock:
            self._fault = None

    @property
    def happened(self) -> bool:
        """Whether the planned fault took place; only a planned one that happened proves anything."""
        return self._fault is not None and self._left < 0

    def close(self) -> None:
        """End everything."""
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                return
            self.connections += 1
            self._sockets += [client, server]
            for source, sink, upwards in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, sink, upwards), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if upwards:
                    self.bytes_up += len(data)
                else:
                    self.bytes_down += len(data)
                fault, data = self._judge(data, upwards)
                match fault:
                    case Fault.BLACK_HOLE:
                        return
                    case Fault.RESET:
                        for end in (source, sink):
                            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                            end.close()
                        return
                    case Fault.CLOSE:
                        sink.sendall(data)
                        for end in (source, sink):
                            end.shutdown(socket.SHUT_RDWR)
                        return
                    case _:
                        sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _judge(self, data: bytes, upwards: bool) -> tuple[Fault | None, bytes]:
        with self._lock:
            if self._fault is None:
                return None, data
            if self._left < 0:  # it happened: a black hole swallows all, the others happen once
                return (Fault.BLACK_HOLE, b"") if self._fault is Fault.BLACK_HOLE else (None, data)
            if upwards is not self._upwards:
                return None, data
            at = self._left
            self._left -= len(data) if at >= len(data) else at + 1
            if at >= len(data):
                return None, data
            if self._fault is Fault.FLIP:
                return None, data[:at] + bytes((data[at] ^ 0x20,)) + data[at + 1 :]
            return self._fault, data[:at]


@contextmanager
def tcp_proxy(target_port: int) -> Iterator[TcpProxy]:
    """A proxy before `target_port`, closed at the end."""
    proxy = TcpProxy(target_port)
    try:
        yield proxy
    finally:
        proxy.close()
