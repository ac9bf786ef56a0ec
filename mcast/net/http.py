"""An HTTP server for a page or two, such as a scraper's: the standard library's, within limits.

Owns the listening socket. Invariant: one request at a time, and none takes longer than
``REQUEST_LIMIT_S``, however slowly its bytes come; the standard library bounds their number (100
header lines of 64 KiB).
"""

from __future__ import annotations

import contextlib
import io
import socket
import socketserver
from collections.abc import Callable
from typing import Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication

from mcast.errors import OptionError

__all__ = ["REQUEST_LIMIT_S", "PageServer", "parse_address"]

REQUEST_LIMIT_S: Final = 2.0
"""A scraper on the same network sends its whole request in one packet."""


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``:9404``, ``0.0.0.0:9404`` or ``[::1]:9404``; no host is 127.0.0.1.

    Raises: OptionError for anything else.
    """
    host, colon, port = text.rpartition(":")
    is_plain = not host or host[0] + host[-1] == "[]" or ":" not in host
    if not colon or not is_plain or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise OptionError(f"metrics is an address such as ':9404' or '0.0.0.0:9404', not {text!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


class PageServer(WSGIServer):
    """Serves ``application`` at an address. One thread calls ``handle_request`` again and again."""

    request_queue_size = 8

    def __init__(
        self,
        address: tuple[str, int],
        application: WSGIApplication,
        deadline_s: Callable[[float], Callable[[], float]],
    ) -> None:
        """``deadline_s(limit)`` starts a clock and returns what asks for the seconds left.

        Raises: OSError if the address cannot be had; nothing stays open then.
        """
        self.start_clock = deadline_s
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self.set_app(application)

    def server_bind(self) -> None:
        """Bind without asking the resolver for the host's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left or was too slow: nothing that anybody wants to read."""

    def stop(self) -> None:
        """End ``handle_request`` in its thread, now and for ever. Does not block."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    def setup(self) -> None:
        super().setup()
        assert isinstance(self.server, PageServer)
        left_s = self.server.start_clock(REQUEST_LIMIT_S)
        self.rfile = io.BufferedReader(_TimedReader(self.connection, left_s))
        self.connection.settimeout(REQUEST_LIMIT_S)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (its name there)
        """Say nothing: stderr is the application's."""


class _TimedReader(io.RawIOBase):
    """What comes from a connection until the time is up, then TimeoutError."""

    def __init__(self, connection: socket.socket, left_s: Callable[[], float]) -> None:
        self._connection = connection
        self._left_s = left_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        left_s = self._left_s()
        if left_s <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)  # type: ignore[arg-type]
