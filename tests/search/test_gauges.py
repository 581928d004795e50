"""The sweep's figures beside Ray's own, scraped as Prometheus would."""

import socket
import urllib.request
from collections.abc import Iterator, Mapping

import pytest
import ray
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from vfsearch.search.gauges import Gauges
from vfsearch.search.records import Asked, Ended
from vfsearch.search.resources import Packing


class Heard:
    def __init__(self) -> None:
        self.events = 0

    def started(self, asked: Asked) -> None:
        self.events += 1

    def epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        self.events += 1

    def ended(self, ended: Ended) -> None:
        self.events += 1


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A Ray of this test's own that reports its metrics every half second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        chosen = int(free.getsockname()[1])
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "500")
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        object_store_memory=100 << 20,
        log_to_driver=False,
        _metrics_export_port=chosen,
    )
    yield chosen
    ray.shutdown()


@pytest.mark.slow
def test_prometheus_reads_trials_epochs_and_gpus(port: int) -> None:
    packed = Packing(trials=2, workers=2, gpus_per_worker=0.5, gpus=2)
    heard = Heard()
    gauges = Gauges("first", "val/x", packed, heard)
    asked = [Asked.__new__(Asked), Asked.__new__(Asked)]  # what they hold does not matter here
    for one in asked:
        gauges.started(one)
    for epoch in (1, 2, 3):
        gauges.epoch(0, epoch, {"val/x": 0.25 * epoch})
    gauges.ended(Ended(number=1, state="PRUNED", reason=None, values=None))
    assert heard.events == 6

    wanted = {
        ("ray_vfsearch_trials{", 'state="running"'): 1.0,
        ("ray_vfsearch_trials{", 'state="pruned"'): 1.0,
        ("ray_vfsearch_epochs_total{", 'sweep="first"'): 3.0,
        ("ray_vfsearch_objective{", 'trial="t000"'): 0.75,
        ("ray_vfsearch_gpus_busy{", 'sweep="first"'): 1.0,
    }

    def scrape() -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        for (name, tag), value in wanted.items():
            found = [line for line in lines if line.startswith(name) and tag in line]
            assert [float(line.rsplit(" ", 1)[1]) for line in found] == [value], (name, lines)

    Retrying(
        retry=retry_if_exception_type((AssertionError, OSError)),
        wait=wait_fixed(0.5),
        stop=stop_after_delay(90),
        reraise=True,
    )(scrape)
