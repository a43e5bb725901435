"""The small server: one page, for this machine alone."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator, Mapping
from http.server import ThreadingHTTPServer

import pytest

from mmha.view.server import HOST, serve


def echo(asked: Mapping[str, str]) -> str:
    return f"{sorted(asked.items())} é"


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with serve(echo) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(server: ThreadingHTTPServer, path: str, host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(HOST, server.server_port, timeout=30)
    connection.request("GET", path, headers={"Host": host or f"{HOST}:{server.server_port}"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_it_answers_with_the_page_of_what_was_asked(server: ThreadingHTTPServer) -> None:
    assert ask(server, "/") == (200, "[] é")
    assert ask(server, "/?a=%3Cb%3E&c=1&c=2") == (200, "[('a', '<b>'), ('c', '2')] é")
    assert ask(server, "/", f"localhost:{server.server_port}") == (200, "[] é")


def test_it_has_no_other_page_and_answers_no_other_name(server: ThreadingHTTPServer) -> None:
    assert ask(server, "/etc/passwd")[0] == 404
    assert ask(server, "/?a=" + "b" * 2**16)[0] in (404, 414)
    assert ask(server, "/", "elsewhere.example")[0] == 403
    assert ask(server, "/", HOST)[0] == 403


def test_nobody_else_can_reach_it(server: ThreadingHTTPServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_said(server: ThreadingHTTPServer) -> None:
    with pytest.raises(OSError, match=rf"--port: expected a free port, got {server.server_port} \("):
        serve(echo, server.server_port)
