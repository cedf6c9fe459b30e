"""A small HTTP server for machines that ask now and then: own threads, bounded, gone within a deadline."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

from inspector.contract.errors import AddressError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_AT_ONCE = 4
"""Requests answered at the same time; a further one gets 503."""
_REQUEST_S = 5.0
"""A connection that takes longer, however slowly it drips, is cut."""


class Reply(NamedTuple):
    """An answer: status code, Content-Type, body."""

    status: int
    content_type: str
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _REQUEST_S
    server_version = "inspector"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        route = self.server.routes.get(self.path.partition("?")[0])
        if route is None:
            known = ", ".join(self.server.routes)
            reply = Reply(404, "text/plain; charset=utf-8", f"no such page; there are: {known}\n".encode())
        else:
            reply = route(self.headers.get("Accept", ""))
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if with_body:
            self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - the base class's signature
        """No line per request: a scrape every few seconds would fill the log with nothing."""


class _Server(HTTPServer):
    allow_reuse_address = True
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], routes: Mapping[str, Callable[[str], Reply]]) -> None:
        self.routes = routes
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._mutex = threading.Lock()
        self._busy: dict[socket.socket, tuple[threading.Thread, float]] = {}
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # The base class looks the host's name up, which can take seconds without a name server.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base class's signature
        with self._mutex:
            if len(self._busy) < _AT_ONCE:
                thread = threading.Thread(target=self._work, args=(request, client_address), name="http-request", daemon=True)
                self._busy[request] = (thread, time.monotonic() + _REQUEST_S)
                thread.start()
                return
        with contextlib.suppress(OSError):
            request.sendall(b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.shutdown_request(request)

    def _work(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as above
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # the asker has left, or was cut off
        finally:
            with self._mutex:
                self._busy.pop(request, None)
                self.shutdown_request(request)

    def service_actions(self) -> None:
        """Called ten times a second by the serving loop."""
        self.cut(time.monotonic())

    def cut(self, now_s: float) -> list[threading.Thread]:
        """End the connections that should have ended before ``now_s``; returns their threads."""
        with self._mutex:
            late = [(request, thread) for request, (thread, until_s) in self._busy.items() if until_s <= now_s]
            for request, _ in late:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)
        return [thread for _, thread in late]


class HttpServer:
    """Answers GET and HEAD on fixed paths.

    Args:
        host: address to listen on.
        port: port; 0: any free one.
        routes: by path: what makes the answer, given the request's Accept header. Called from request threads, several at a time.
        key: the setting that names the address, for the error's sentence.

    Raises:
        AddressError: the address cannot be bound.
    """

    def __init__(self, host: str, port: int, routes: Mapping[str, Callable[[str], Reply]], *, key: str) -> None:
        try:
            self._server = _Server((host, port), routes)
        except OSError as error:
            raise AddressError(f"{host}:{port}: the address cannot be used ({error.strerror}); set another {key}") from None
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="http", daemon=True)

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self._server.server_port)

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        """Close the port, cut what is still being answered. True: all its threads have ended within ``deadline_s`` seconds."""
        until_s = time.monotonic() + deadline_s
        threads = [self._thread] if self._thread.ident is not None else []
        if threads:
            # shutdown() waits for the loop without a deadline: the wait is done here instead.
            stopper = threading.Thread(target=self._server.shutdown, name="http-stop", daemon=True)
            stopper.start()
            threads.append(stopper)
        for thread in threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        self._server.server_close()
        working = self._server.cut(float("inf"))
        for thread in working:
            thread.join(max(0.0, until_s - time.monotonic()))
        return not any(thread.is_alive() for thread in threads + working)
