"""Notices that a node is taken away: read as EC2 tells them, on the real protocol."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vfsearch.cluster import notice

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


class Metadata(BaseHTTPRequestHandler):
    """IMDSv2 of an instance: no answer without a token that was asked for by PUT."""

    told: str | None = None

    def do_PUT(self) -> None:
        asked = self.path == "/latest/api/token"
        lasts = int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"])
        self._answer(200 if asked and lasts > 0 else 400, "the-token")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != "the-token":
            return self._answer(401, "")
        if self.path != "/latest/meta-data/spot/instance-action" or self.told is None:
            return self._answer(404, "")
        return self._answer(200, json.dumps({"action": "terminate", "time": self.told}))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Metadata]]:
    handler = type("Instance", (Metadata,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", address)
        yield handler
        server.shutdown()
        thread.join()


def test_an_instance_that_stays_has_no_notice(metadata: type[Metadata]) -> None:
    assert notice.spot_notice(NOW) is None


def test_a_notice_tells_how_long_there_is(metadata: type[Metadata]) -> None:
    metadata.told = (NOW + timedelta(seconds=120)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert notice.spot_notice(NOW) == 120
    assert notice.spot_notice(NOW + timedelta(seconds=500)) == 0


def test_elsewhere_there_is_no_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
    assert notice.spot_notice(NOW) is None


def test_the_node_is_drained_once_the_notice_is_there(
    metadata: type[Metadata], monkeypatch: pytest.MonkeyPatch
) -> None:
    drained: list[float] = []
    looks: list[float] = []

    def later(seconds: float) -> None:
        looks.append(seconds)
        soon = datetime.now(UTC) + timedelta(seconds=119)
        metadata.told = soon.strftime("%Y-%m-%dT%H:%M:%SZ")

    monkeypatch.setattr(notice.time, "sleep", later)
    monkeypatch.setattr(notice, "drain", lambda seconds, _why: drained.append(seconds))
    left = notice.drain_on_notice()
    assert looks == [5.0]
    assert 100 < left < 120
    assert drained == [left - 10]
