"""Metrics: names that Prometheus accepts, numbers that add up, pages that answer under trouble."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from inspector.config.station import MetricsConfig
from inspector.contract.errors import AddressError, ExitCode
from inspector.contract.records import Blind, Event, EventLevel, LateResult, Outcome, Reason
from inspector.metrics import BUCKETS_S, Metrics, Sources

SECOND_NS = 10**9


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Iterator[Metrics]:
    made = Metrics(MetricsConfig(port=0), registry=registry, station="line-1", version="0.1.0", classes=["scratch", "dent"])
    yield made
    made.stop(5.0)


CHANNEL = SimpleNamespace(
    requests={"hello": 3, "ping": 90},
    bad={"unreadable": 7, "too_fast": 100},
    unanswered=60,
    askers=2,
    replayed=512,
    busy_s=0.25,
    knocks={"accepted": 3, "no_key": 1},
    controllers={"plc": SimpleNamespace(present=True, outstanding=2, overdue_in_all=5, failed=1)},
    alarms=(SimpleNamespace(name="ack_overdue:plc", acknowledged_by=None), SimpleNamespace(name="actuation_failed:plc", acknowledged_by="boss")),
)
FULL = Sources(
    ledger=lambda: {"top": SimpleNamespace(opened=10, closed=8, pending=2)},
    queue_depths=lambda: {"inspection": 3},
    stage_ages_s=lambda: {"inspection": 0.01},
    camera_states=lambda: {"top": "streaming"},
    camera_starts=lambda: {"top": 1},
    heartbeat_age_s=lambda: 0.02,
    refused=lambda: {"journal": 4, "archive": 1},
    writable=lambda: {"journal": False},
    channel=lambda: CHANNEL,
)


def fill(metrics: Metrics, made: SimpleNamespace) -> None:
    for number in range(1, 6):
        metrics.offer(made.make_part(number))
    metrics.offer(made.make_part(6, Outcome.REJECT, defects=(made.make_defect(), made.make_defect("dent", counted=False), made.make_defect("new"))))
    metrics.offer(made.make_part(7, Outcome.UNINSPECTED, reason=Reason.LATE))
    metrics.offer(LateResult("top", 7, made.make_proposal(), 0))
    metrics.offer(Event("camera_lost", EventLevel.ERROR, "gone", 0, "top"))
    metrics.offer(Blind("top", SECOND_NS, None, "camera lost"))


def test_parts_defects_and_reasons(metrics: Metrics, registry: CollectorRegistry, made: SimpleNamespace) -> None:
    fill(metrics, made)
    value = registry.get_sample_value
    assert value("inspector_parts_total", {"stream": "top", "outcome": "PASS", "reason": ""}) == 5
    assert value("inspector_parts_total", {"stream": "top", "outcome": "REJECT", "reason": ""}) == 1
    assert value("inspector_parts_total", {"stream": "top", "outcome": "UNINSPECTED", "reason": "late"}) == 1
    assert value("inspector_defects_total", {"class": "scratch"}) == 1
    assert value("inspector_defects_total", {"class": "dent"}) == 0, "found, but not counted"
    assert value("inspector_defects_total", {"class": "other"}) == 1
    assert value("inspector_late_results_total", {"stream": "top"}) == 1
    assert value("inspector_events_total", {"name": "camera_lost", "level": "error"}) == 1
    assert value("inspector_build_info", {"station": "line-1", "version": "0.1.0"}) == 1


def test_latencies_are_seconds_in_cumulated_buckets(metrics: Metrics, registry: CollectorRegistry, made: SimpleNamespace) -> None:
    fill(metrics, made)
    value = registry.get_sample_value
    assert value("inspector_latency_seconds_count", {"stage": "engine"}) == 7
    assert value("inspector_latency_seconds_sum", {"stage": "engine"}) == pytest.approx(7 * 0.006)
    counts = [value("inspector_latency_seconds_bucket", {"stage": "engine", "le": str(bound)}) for bound in BUCKETS_S]
    assert counts == [0.0 if bound < 0.006 else 7.0 for bound in BUCKETS_S]
    assert value("inspector_latency_seconds_bucket", {"stage": "queue", "le": "0.0005"}) == 7, "a bound belongs to its bucket"
    assert value("inspector_latency_seconds_bucket", {"stage": "engine", "le": "+Inf"}) == 7


def test_blind_now_and_in_sum(metrics: Metrics, registry: CollectorRegistry) -> None:
    value = registry.get_sample_value
    metrics.offer(Blind("top", SECOND_NS, None, "camera lost"))
    assert value("inspector_blind", {"stream": "top"}) == 1
    assert value("inspector_blind_seconds_total", {"stream": "top"}) == 0
    metrics.offer(Blind("top", SECOND_NS, 3 * SECOND_NS, "camera lost"))
    metrics.offer(Blind("top", 5 * SECOND_NS, 6 * SECOND_NS, "gap"))
    assert value("inspector_blind", {"stream": "top"}) == 0
    assert value("inspector_blind_seconds_total", {"stream": "top"}) == 3


def test_states_are_asked_for_at_the_scrape(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.watch(FULL, {})
    value = registry.get_sample_value
    assert value("inspector_ledger_opened_total", {"stream": "top"}) == 10
    assert value("inspector_ledger_closed_total", {"stream": "top"}) == 8
    assert value("inspector_ledger_pending", {"stream": "top"}) == 2
    assert value("inspector_camera_state", {"camera": "top", "state": "streaming"}) == 1
    assert value("inspector_camera_state", {"camera": "top", "state": "lost"}) == 0
    assert value("inspector_heartbeat_age_seconds") == 0.02
    assert value("inspector_output_refused_total", {"output": "journal"}) == 4
    assert value("inspector_output_writable", {"output": "journal"}) == 0
    assert value("inspector_channel_requests_total", {"type": "ping"}) == 90
    assert value("inspector_channel_refused_total", {"kind": "too_fast"}) == 100
    assert value("inspector_channel_unanswered_total") == 60
    assert value("inspector_channel_connections_total", {"result": "no_key"}) == 1
    assert value("inspector_channel_askers") == 2
    assert value("inspector_channel_replayed_total") == 512
    assert value("inspector_channel_busy_seconds_total") == 0.25
    assert value("inspector_controller_present", {"controller": "plc"}) == 1
    assert value("inspector_acks_outstanding", {"controller": "plc"}) == 2
    assert value("inspector_acks_overdue_total", {"controller": "plc"}) == 5
    assert value("inspector_actuations_failed_total", {"controller": "plc"}) == 1
    assert value("inspector_alarm", {"alarm": "ack_overdue:plc", "acknowledged": "no"}) == 1
    assert value("inspector_alarm", {"alarm": "actuation_failed:plc", "acknowledged": "yes"}) == 1


def test_a_station_without_a_channel_has_no_metrics_of_it(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.watch(Sources(), {})
    assert not [family.name for family in registry.collect() if family.name.startswith(("inspector_channel", "inspector_alarm", "inspector_acks"))]


def test_a_scrape_takes_the_ledger_once(metrics: Metrics, registry: CollectorRegistry) -> None:
    calls = []

    def ledger() -> dict[str, Any]:
        calls.append(1)
        number = len(calls)
        return {"top": SimpleNamespace(opened=10 * number, closed=9 * number, pending=number)}

    metrics.watch(Sources(ledger=ledger), {})
    text = generate_latest(registry).decode()
    numbers = [float(line.split()[-1]) for line in text.splitlines() if line.startswith("inspector_ledger")]
    assert len(calls) == 1
    assert numbers == [10, 9, 1]


def test_a_source_that_fails_hides_nothing_else(metrics: Metrics, registry: CollectorRegistry, made: SimpleNamespace) -> None:
    fill(metrics, made)
    metrics.watch(Sources(queue_depths=lambda: {}[1], heartbeat_age_s=lambda: 0.5), {})
    text = generate_latest(registry).decode()
    assert 'inspector_source_errors_total{source="queue_depths"} 1.0' in text
    assert "inspector_heartbeat_age_seconds 0.5" in text
    assert "inspector_parts_total" in text


def test_labels_stay_bounded(metrics: Metrics, registry: CollectorRegistry, made: SimpleNamespace) -> None:
    for number in range(200):
        metrics.offer(Event(f"event-{number}", EventLevel.INFO, "", 0))
        metrics.offer(made.make_part(number, Outcome.REJECT, defects=(made.make_defect(f"class-{number}"),)))
    text = generate_latest(registry).decode()
    assert text.count("inspector_events_total{") <= 67
    assert text.count("inspector_defects_total{") == 3
    assert registry.get_sample_value("inspector_events_total", {"name": "other", "level": "info"}) == 136


def test_names_follow_the_conventions(metrics: Metrics, registry: CollectorRegistry, made: SimpleNamespace) -> None:
    fill(metrics, made)
    metrics.watch(FULL, {})
    page = generate_latest(registry)
    families = {family.name: family for family in text_string_to_metric_families(page.decode())}
    own = {name: family for name, family in families.items() if name.startswith("inspector_")}
    assert len(own) >= 18
    for name, family in own.items():
        assert re.fullmatch(r"inspector_[a-z]+(_[a-z]+)*", name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|milliseconds|minutes|bytes_total_count)\b", name)
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        else:
            assert not name.endswith("_total")
        for sample in family.samples:
            assert not {"le", "quantile"} & set(sample.labels) or family.type == "histogram"
    promtool = shutil.which("promtool")
    if promtool:  # where it is not installed, the rules above are all that is checked
        checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


def get(metrics: Metrics, path: str, **headers: str) -> tuple[int, str, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{metrics.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_the_metrics_page(metrics: Metrics, made: SimpleNamespace) -> None:
    fill(metrics, made)
    metrics.start()
    status, kind, text = get(metrics, "/metrics?x=1")
    assert status == 200
    assert kind.startswith("text/plain; version=")
    assert 'inspector_parts_total{outcome="PASS",reason="",stream="top"} 5.0' in text
    status, kind, text = get(metrics, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_health_tells_what_is_wrong(metrics: Metrics) -> None:
    said = {"journal": "", "camera": ""}
    metrics.watch(Sources(), {name: lambda name=name: said[name] for name in said} | {"broken": lambda: said["absent"]})
    metrics.start()
    said["absent"] = ""
    assert get(metrics, "/healthz")[0] == 200
    said["camera"] = "no image for 3 s"
    status, kind, text = get(metrics, "/healthz")
    assert (status, kind) == (503, "application/json")
    assert json.loads(text) == {"status": "failing", "checks": {"journal": "ok", "camera": "no image for 3 s", "broken": "ok"}}
    said["camera"] = ""
    del said["absent"]
    assert get(metrics, "/healthz")[0] == 503


def test_an_unknown_page(metrics: Metrics) -> None:
    metrics.start()
    status, _, text = get(metrics, "/")
    assert status == 404
    assert "/metrics" in text


def test_a_busy_port(metrics: Metrics) -> None:
    metrics.start()
    second = Metrics(MetricsConfig(port=metrics.port), registry=CollectorRegistry(), station="s", version="1", classes=[])
    with pytest.raises(AddressError) as caught:
        second.start()
    assert caught.value.exit_code is ExitCode.UNAVAILABLE
    assert f"127.0.0.1:{metrics.port}" in str(caught.value)
    assert "metrics.port" in str(caught.value)
    assert second.stop(1.0)


def test_clients_that_never_finish_neither_block_others_for_ever_nor_the_stop(metrics: Metrics) -> None:
    metrics.start()
    idle = [socket.create_connection(("127.0.0.1", metrics.port)) for _ in range(6)]
    try:
        # Four are being waited for; the fifth and sixth are turned away at once.
        for connection in idle[4:]:
            connection.settimeout(10)
            assert connection.recv(100).startswith(b"HTTP/1.0 503")
        idle[0].close()
        end = time.monotonic() + 10
        while get(metrics, "/healthz")[0] != 200:
            assert time.monotonic() < end
        began = time.monotonic()
        assert metrics.stop(5.0)
        assert time.monotonic() - began < 3.0
    finally:
        for connection in idle:
            connection.close()


def test_connections_that_drip_are_cut(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspector.httpd._REQUEST_S", 0.3)
    metrics.start()
    with socket.create_connection(("127.0.0.1", metrics.port)) as connection:
        connection.settimeout(10)
        connection.sendall(b"GET /metrics HTTP/1.0\r\nX-Slow: ")
        assert connection.recv(100) == b""


def test_scrapes_while_parts_are_counted(metrics: Metrics, made: SimpleNamespace) -> None:
    metrics.start()
    part = made.make_part(1)
    done = threading.Event()

    def count() -> None:
        while not done.is_set():
            metrics.offer(part)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        last = 0.0
        for _ in range(5):
            text = get(metrics, "/metrics")[2]
            values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
            parts = float(values.get('inspector_parts_total{outcome="PASS",reason="",stream="top"}', 0))
            assert parts == float(values['inspector_latency_seconds_count{stage="total"}'])
            assert parts >= last
            last = parts
    finally:
        done.set()
        thread.join()
