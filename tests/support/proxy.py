"""An HTTP proxy that fails on purpose: errors, dropped connections, lost replies, delays."""

import contextlib
import http.client
import itertools
import threading
import time
from collections.abc import Callable
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

THROTTLED = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code>"
    b"<Message>Please reduce your request rate.</Message></Error>"
)
HOP_BY_HOP = {"connection", "keep-alive", "expect", "transfer-encoding"}


class Fate(Enum):
    """What becomes of one request."""

    PASS = "passes"
    ERROR_500 = "is answered 500, not forwarded"
    ERROR_503 = "is answered 503, not forwarded"
    ERROR_507 = "is answered 507, not forwarded"
    SLOW_DOWN = "is answered as S3 does when it throttles, not forwarded"
    DROP = "connection closed, not forwarded"
    LOSE_REPLY = "forwarded, connection closed before the reply"


ERRORS = {Fate.ERROR_500: 500, Fate.ERROR_503: 503, Fate.ERROR_507: 507}


class Proxy:
    """Forwards to ``target`` on a port of its own; ``fate`` decides by method, path and number."""

    def __init__(self, target: str) -> None:
        self.fate: Callable[[str, str, int], Fate] = lambda method, path, number: Fate.PASS
        self.delay = 0.0
        self.seen: list[tuple[str, str, Fate]] = []
        self.on_request: Callable[[str, str], None] = lambda method, path: None
        self._numbers = itertools.count()
        address = urlsplit(target)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fate = outer.fate(self.command, self.path, next(outer._numbers))
                outer.seen.append((self.command, self.path, fate))
                outer.on_request(self.command, self.path)
                time.sleep(outer.delay)
                if fate is Fate.DROP:
                    self.close_connection = True
                elif fate in ERRORS:
                    self._reply(ERRORS[fate], {}, b"on purpose")
                elif fate is Fate.SLOW_DOWN:
                    self._reply(503, {"Content-Type": "application/xml"}, THROTTLED)
                else:
                    self._forward(body, lose=fate is Fate.LOSE_REPLY)

            def _forward(self, body: bytes, *, lose: bool) -> None:
                upstream = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
                try:
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
                    upstream.request(self.command, self.path, body or None, headers)
                    reply = upstream.getresponse()
                    data = reply.read()
                    if lose:
                        self.close_connection = True
                    else:
                        self._reply(reply.status, dict(reply.getheaders()), data)
                except OSError:
                    self.close_connection = True
                finally:
                    upstream.close()

            def _reply(self, status: int, headers: dict[str, str], data: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in HOP_BY_HOP and name.lower() != "content-length":
                        self.send_header(name, value)
                length = headers.get("content-length") or headers.get("Content-Length")
                head = self.command == "HEAD"
                self.send_header("Content-Length", (length or "0") if head else str(len(data)))
                self.end_headers()
                if not head:
                    self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = _handle  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def handle(self) -> None:
                with contextlib.suppress(OSError):  # the client was killed
                    super().handle()

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
