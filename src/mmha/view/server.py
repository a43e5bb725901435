"""A small server of a page for the browser on this machine: nobody else can reach it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

HOST = "127.0.0.1"
LONGEST = 1 << 16  # characters of an address
Make = Callable[[Mapping[str, str]], str]


def serve(make: Make, port: int = 0) -> ThreadingHTTPServer:
    """A server on 127.0.0.1 that answers `/?name=value` with the page of make({name: value}); it does not run yet.

    Port 0 takes a free one, which `server_port` tells. Raises: OSError when the port cannot be had.
    """
    lock = threading.Lock()  # models are not for several threads at a time

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = self.answer()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            self.wfile.write(body)

        def answer(self) -> tuple[int, str, bytes]:
            # A name that was made to point here would let another page read what this one says.
            names = {f"{host}:{self.server.server_port}" for host in (HOST, "localhost")}  # type: ignore[attr-defined]
            if self.headers.get("Host") not in names:
                return 403, "text/plain; charset=utf-8", b"this page is for its own machine\n"
            address = urlsplit(self.path)
            if address.path != "/" or len(self.path) > LONGEST:
                return 404, "text/plain; charset=utf-8", b"there is one page, at /\n"
            asked = {name: values[-1] for name, values in parse_qs(address.query).items()}
            with lock:
                return 200, "text/html; charset=utf-8", make(asked).encode()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nobody reads it."""

    try:
        server = ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise OSError(f"--port: expected a free port, got {port} ({error.strerror})") from None
    server.daemon_threads = True
    return server
