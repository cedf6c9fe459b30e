"""What every output promises, run over all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from inspector.archive.writer import Archive
from inspector.config.station import ArchiveConfig, JournalConfig, MetricsConfig
from inspector.contract.records import Blind, Event, EventLevel, LateResult, Outcome, Output, OutputItem, Reason
from inspector.journal.writer import Journal
from inspector.metrics import Metrics

Make = Callable[[Path], Output]

OUTPUTS: dict[str, Make] = {
    "journal": lambda path: Journal(JournalConfig(path=path / "journal.sqlite"), station="s", boot_id="b"),
    "archive": lambda path: Archive(ArchiveConfig(path=path / "pictures"), boot_id="b"),
    "metrics": lambda path: Metrics(MetricsConfig(port=0), registry=CollectorRegistry(), station="s", version="1", classes=["scratch"]),
}


@pytest.fixture(params=OUTPUTS)
def make(request: pytest.FixtureRequest) -> Make:
    return OUTPUTS[request.param]


@pytest.fixture
def output(make: Make, tmp_path: Path) -> Iterator[Output]:
    made = make(tmp_path)
    yield made
    made.stop(5.0)


def items(made: SimpleNamespace, first: int = 1) -> list[OutputItem]:
    now_ns = time.monotonic_ns()
    return [
        made.make_part(first),
        made.make_part(first + 1, Outcome.REJECT),
        made.make_part(first + 2, Outcome.UNINSPECTED, reason=Reason.NO_FRAME, views=()),
        LateResult("top", first, made.make_proposal(), now_ns),
        Blind("top", now_ns + first, None, "camera lost"),
        Event("started", EventLevel.INFO, "", now_ns),
    ]


def test_it_takes_every_kind_of_item_and_leaves_nothing_behind(output: Output, made: SimpleNamespace) -> None:
    output.start()
    assert all(output.offer(item) for item in items(made))
    assert output.stop(5.0)


def test_an_offer_never_waits(output: Output, made: SimpleNamespace) -> None:
    output.start()
    batch = [item for first in range(1, 3001, 3) for item in items(made, first)]
    slowest_s = 0.0
    for item in batch:
        began = time.perf_counter()
        output.offer(item)
        slowest_s = max(slowest_s, time.perf_counter() - began)
    # A wait for a disk or a thread's interval would show many times over; one descheduling of this thread does not.
    assert slowest_s < 1.0
    assert output.stop(10.0)


def test_a_stop_without_a_start(output: Output) -> None:
    assert output.stop(1.0)


def test_a_second_stop(output: Output) -> None:
    output.start()
    assert output.stop(5.0)
    assert output.stop(5.0)


def test_a_stop_is_prompt(output: Output) -> None:
    output.start()
    began = time.monotonic()
    assert output.stop(5.0)
    assert time.monotonic() - began < 4.0


def test_an_offer_before_the_start_and_after_the_stop_does_not_raise(output: Output, made: SimpleNamespace) -> None:
    for item in items(made):
        assert output.offer(item) in (True, False)
    output.start()
    assert output.stop(5.0)
    for item in items(made, 10):
        assert output.offer(item) in (True, False)


def test_outputs_of_two_starts_follow_each_other(make: Make, tmp_path: Path, made: SimpleNamespace) -> None:
    for first in (1, 10):
        output = make(tmp_path)
        output.start()
        try:
            # The same boot twice: what a daemon does that is started again after its journal was kept.
            assert all(output.offer(item) for item in items(made, first))
        finally:
            assert output.stop(5.0)
