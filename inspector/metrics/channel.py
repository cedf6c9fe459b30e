"""Metrics of the request channel: what is asked, what is refused, which controllers are there, and the alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from inspector.metrics.families import counters, gauges

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prometheus_client.core import Metric


class ControllerAccount(Protocol):
    """One controller that the station names."""

    @property
    def present(self) -> bool:
        """It is connected, and speaks."""

    @property
    def outstanding(self) -> int:
        """Verdicts that it has still to acknowledge."""

    @property
    def overdue_in_all(self) -> int:
        """Verdicts that it did not acknowledge in time."""

    @property
    def failed(self) -> int:
        """Parts that it could not reject, divert or stop."""


class AlarmAccount(Protocol):
    """One alarm."""

    @property
    def name(self) -> str:
        """From a bounded set: a kind and a controller's name."""

    @property
    def acknowledged_by(self) -> str | None:
        """None: nobody knows of it."""


class ChannelAccount(Protocol):
    """The channel at one instant."""

    @property
    def requests(self) -> Mapping[str, int]:
        """By type."""

    @property
    def bad(self) -> Mapping[str, int]:
        """Requests that were not done, by kind."""

    @property
    def unanswered(self) -> int:
        """Of these: not answered."""

    @property
    def askers(self) -> int:
        """Connections that have asked."""

    @property
    def replayed(self) -> int:
        """Messages sent again."""

    @property
    def busy_s(self) -> float:
        """CPU time."""

    @property
    def knocks(self) -> Mapping[str, int]:
        """Connections that were let in or refused."""

    @property
    def controllers(self) -> Mapping[str, ControllerAccount]:
        """By name."""

    @property
    def alarms(self) -> Sequence[AlarmAccount]:
        """All of them."""


def channel_metrics(account: ChannelAccount | None) -> Iterator[Metric]:
    """The families of ``account``; nothing for None."""
    if account is None:
        return
    yield counters("inspector_channel_requests", "Requests that could be read, by type.", "type", account.requests)
    yield counters("inspector_channel_refused", "Requests that were not done, by kind.", "kind", account.bad)
    yield CounterMetricFamily("inspector_channel_unanswered", "Requests that were not done and not answered.", value=account.unanswered)
    yield counters("inspector_channel_connections", "Connections, by what became of them.", "result", account.knocks)
    yield GaugeMetricFamily("inspector_channel_askers", "Connections that have asked something.", value=account.askers)
    yield CounterMetricFamily("inspector_channel_replayed", "Messages sent again.", value=account.replayed)
    yield CounterMetricFamily("inspector_channel_busy_seconds", "CPU time of the channel's thread.", value=account.busy_s)
    by_name = account.controllers
    present = {name: int(one.present) for name, one in by_name.items()}
    yield gauges("inspector_controller_present", "1 while the controller speaks.", "controller", present)
    outstanding = {name: one.outstanding for name, one in by_name.items()}
    yield gauges("inspector_acks_outstanding", "Verdicts that the controller has still to acknowledge.", "controller", outstanding)
    overdue = {name: one.overdue_in_all for name, one in by_name.items()}
    yield counters("inspector_acks_overdue", "Verdicts that the controller did not acknowledge in time.", "controller", overdue)
    failed = {name: one.failed for name, one in by_name.items()}
    yield counters("inspector_actuations_failed", "Parts that the controller could not reject, divert or stop.", "controller", failed)
    alarms = GaugeMetricFamily("inspector_alarm", "1 while there is this alarm.", labels=["alarm", "acknowledged"])
    for alarm in account.alarms:
        alarms.add_metric([alarm.name, "no" if alarm.acknowledged_by is None else "yes"], 1)
    yield alarms
