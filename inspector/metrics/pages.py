"""Every metric of the station: names, labels and buckets, on a registry that is passed in, and the pages that serve them.

What happens to parts is counted as they are offered; what is a state (queues, ages, the ledger) is asked for when a scrape comes. One
collector gives all of it, so that one scrape is one snapshot. Labels are bounded: streams, stages, outcomes, reasons, the engine's
classes, and words of this program.
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder

from inspector.contract.channel import CameraState
from inspector.contract.records import Blind, ClosedPart, Event, LateResult, Outcome
from inspector.httpd import HttpServer, Reply
from inspector.metrics.channel import channel_metrics
from inspector.metrics.families import counters, gauges
from inspector.metrics.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from inspector.config.station import MetricsConfig
    from inspector.contract.records import OutputItem, StageTimes

BUCKETS_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
STAGES = ("transfer", "queue", "validity", "preprocess", "engine", "rules", "total")
OTHER = "other"
"""Stands for a class or an event beyond the bound."""
_MAX_EVENTS = 64

T = TypeVar("T")


def new_registry() -> CollectorRegistry:
    """An empty registry, for those who have none to pass in."""
    return CollectorRegistry()


class _Latencies:
    """One histogram's numbers."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds


class Metrics:
    """Output that counts, and the collector of all that is counted.

    Args:
        config: host and port of the pages.
        registry: where the metrics are registered; the caller's, so that two stations can live in one process.
        station: name of the station.
        version: version of the program.
        classes: the engine's classes; any other is counted as ``other``.
    """

    def __init__(self, config: MetricsConfig, *, registry: CollectorRegistry, station: str, version: str, classes: Iterable[str]) -> None:
        self._config = config
        self._registry = registry
        self._build = {"station": station, "version": version}
        self._classes = frozenset(classes)
        self._mutex = threading.Lock()
        self._parts: Counter[tuple[str, str, str]] = Counter()
        self._defects: Counter[str] = Counter(dict.fromkeys(self._classes, 0))
        self._late: Counter[str] = Counter()
        self._events: Counter[tuple[str, str]] = Counter()
        self._blind_s: dict[str, float] = {}
        self._blind_now: dict[str, set[int]] = {}
        self._latencies = {stage: _Latencies() for stage in STAGES}
        self._source_errors: Counter[str] = Counter()
        self._sources = Sources()
        self._health: dict[str, Callable[[], str]] = {}
        self._server: HttpServer | None = None
        registry.register(self)
        ProcessCollector(registry=registry)

    def watch(self, sources: Sources, health: Mapping[str, Callable[[], str]]) -> None:
        """Say where states come from. Before ``start``.

        Args:
            sources: asked at every scrape.
            health: checks of ``/healthz`` by name; each returns an empty string, or a sentence saying what is wrong.
        """
        self._sources = sources
        self._health = dict(health)

    @property
    def port(self) -> int:
        """The port that was bound; 0 before ``start``."""
        return self._server.port if self._server else 0

    def start(self) -> None:
        """Serve ``/metrics`` and ``/healthz``.

        Raises:
            AddressError: the address cannot be bound.
        """
        routes = {"/metrics": self._metrics_page, "/healthz": self._health_page}
        self._server = HttpServer(self._config.host, self._config.port, routes, key="metrics.port")
        self._server.start()

    def stop(self, deadline_s: float) -> bool:
        """Close the pages; the counts stay."""
        server, self._server = self._server, None
        return server.stop(deadline_s) if server else True

    def offer(self, item: OutputItem) -> bool:
        """Count ``item``. Any thread; always True."""
        with self._mutex:
            if isinstance(item, ClosedPart):
                self._parts[item.stream, item.outcome.value, item.reason.value if item.reason else ""] += 1
                for defect in item.defects:
                    if defect.counted:
                        self._defects[defect.name if defect.name in self._classes else OTHER] += 1
                self._observe(item.times)
            elif isinstance(item, Blind):
                self._count_blind(item)
            elif isinstance(item, Event):
                key = (item.name, item.level.value)
                self._events[key if key in self._events or len(self._events) < _MAX_EVENTS else (OTHER, item.level.value)] += 1
            elif isinstance(item, LateResult):
                self._late[item.stream] += 1
        return True

    def _observe(self, times: StageTimes) -> None:
        stages = (times.transfer_ms, times.queue_ms, times.validity_ms, times.preprocess_ms, times.engine_ms, times.rules_ms, times.total_ms)
        for latencies, milliseconds in zip(self._latencies.values(), stages, strict=True):
            if milliseconds is not None:
                latencies.observe(milliseconds / 1000)

    def _count_blind(self, blind: Blind) -> None:
        """An interval is told when it begins (without an end) and when it ends, or only then."""
        now = self._blind_now.setdefault(blind.stream, set())
        self._blind_s.setdefault(blind.stream, 0.0)
        if blind.to_ns is None:
            now.add(blind.from_ns)
        else:
            now.discard(blind.from_ns)
            self._blind_s[blind.stream] += max(0, blind.to_ns - blind.from_ns) / 1e9

    def collect(self) -> Iterator[Metric]:
        """All metrics, for the registry."""
        with self._mutex:
            yield from list(self._counted())
        yield from self._asked()

    def _counted(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("inspector_build_info", "Always 1; says what runs.", labels=list(self._build))
        build.add_metric(list(self._build.values()), 1)
        yield build
        parts = CounterMetricFamily("inspector_parts", "Parts closed, by stream, outcome and reason.", labels=["stream", "outcome", "reason"])
        streams = {stream for stream, _, _ in self._parts}
        for stream, outcome in ((stream, outcome.value) for stream in sorted(streams) for outcome in (Outcome.PASS, Outcome.REJECT)):
            parts.add_metric([stream, outcome, ""], self._parts[stream, outcome, ""])
        for key, number in sorted(self._parts.items()):
            if key[1] == Outcome.UNINSPECTED.value or key[2]:
                parts.add_metric(list(key), number)
        yield parts
        yield counters("inspector_defects", "Counted defects by class.", "class", self._defects)
        yield counters("inspector_late_results", "Results that came after their part was closed.", "stream", self._late)
        yield counters("inspector_blind_seconds", "Seconds of finished blind intervals.", "stream", self._blind_s)
        yield gauges("inspector_blind", "1 while the stream cannot see.", "stream", {name: float(bool(now)) for name, now in self._blind_now.items()})
        events = CounterMetricFamily("inspector_events", "Events by name and level.", labels=["name", "level"])
        for (name, level), number in sorted(self._events.items()):
            events.add_metric([name, level], number)
        yield events
        latency = HistogramMetricFamily("inspector_latency_seconds", "Time of one part in each stage; total: exposure to closing.", labels=["stage"])
        for stage, latencies in self._latencies.items():
            cumulated, buckets = 0, []
            for bound, number in zip((*BUCKETS_S, float("inf")), latencies.counts, strict=True):
                cumulated += number
                buckets.append(("+Inf" if bound == float("inf") else str(bound), float(cumulated)))
            latency.add_metric([stage], buckets=buckets, sum_value=latencies.sum_s)
        yield latency

    def _asked(self) -> Iterator[Metric]:
        sources = self._sources
        books = self._ask("ledger", sources.ledger) or {}
        yield counters("inspector_ledger_opened", "Parts opened in the ledger.", "stream", {stream: one.opened for stream, one in books.items()})
        yield counters("inspector_ledger_closed", "Parts closed in the ledger.", "stream", {stream: one.closed for stream, one in books.items()})
        yield gauges("inspector_ledger_pending", "Parts open in the ledger.", "stream", {stream: one.pending for stream, one in books.items()})
        yield gauges("inspector_queue_depth", "Items that wait in a queue.", "queue", (self._ask("queue_depths", sources.queue_depths) or {}))
        ages_s = self._ask("stage_ages", sources.stage_ages_s) or {}
        yield gauges("inspector_stage_age_seconds", "Time since a stage's last sign of life.", "stage", ages_s)
        states = GaugeMetricFamily("inspector_camera_state", "1 for the state that the camera is in.", labels=["camera", "state"])
        for camera, found in (self._ask("camera_states", sources.camera_states) or {}).items():
            for state in CameraState:
                states.add_metric([camera, state.value], float(state.value == found))
        yield states
        starts = self._ask("camera_starts", sources.camera_starts) or {}
        yield counters("inspector_camera_process_starts", "Camera processes started.", "camera", starts)
        age_s = self._ask("heartbeat_age", sources.heartbeat_age_s)
        if age_s is not None:
            yield GaugeMetricFamily("inspector_heartbeat_age_seconds", "Time since the last heartbeat was sent.", value=age_s)
        yield from channel_metrics(self._ask("channel", sources.channel))
        came = self._ask("subscribers", sources.subscribers) or {}
        yield counters("inspector_publisher_connections", "Connections to the publisher, by what became of them.", "result", came)
        refused = self._ask("refused", sources.refused) or {}
        yield counters("inspector_output_refused", "Items that an output refused or lost.", "output", refused)
        writable = self._ask("writable", sources.writable) or {}
        yield gauges(
            "inspector_output_writable", "0 while the disk of an output refuses.", "output", {name: int(good) for name, good in writable.items()}
        )
        yield counters("inspector_source_errors", "Scrapes in which a source failed.", "source", self._source_errors)

    def _ask(self, name: str, source: Callable[[], T]) -> T | None:
        """One failing source must not hide all other metrics: its own are missing from the scrape, and it is counted."""
        try:
            return source()
        except Exception:  # noqa: BLE001 - counted; whatever it is
            with self._mutex:
                self._source_errors[name] += 1
            return None

    def _metrics_page(self, accept: str) -> Reply:
        encode, content_type = choose_encoder(accept)
        return Reply(200, content_type, encode(self._registry))

    def _health_page(self, _: str) -> Reply:
        checks = {}
        for name, check in self._health.items():
            try:
                checks[name] = check() or "ok"
            except Exception as error:  # noqa: BLE001 - a check that fails is not healthy
                checks[name] = f"the check itself failed: {error}"
        good = all(said == "ok" for said in checks.values())
        body = json.dumps({"status": "ok" if good else "failing", "checks": checks}) + "\n"
        return Reply(200 if good else 503, "application/json", body.encode())
