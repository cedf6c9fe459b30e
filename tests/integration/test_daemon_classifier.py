"""The real daemon with a detector and a classifier: one verdict of both, in each of the three ways, and none where one of them fails."""

from __future__ import annotations

import runpy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from inspector.camera.simulator.feed import write_feed
from inspector.contract import requests
from inspector.contract.errors import ExitCode
from inspector.contract.records import Outcome, Reason
from inspector.contract.requests import Done

ASSETS = Path(__file__).resolve().parents[1] / "assets"
IMAGES = 16
CLASSIFIER = """
[classifier]
engine = "none.json"
on = "{on}"
verdict = "{verdict}"
crop_margin = 0
"""
BITS = {0: "finder", 1: "whole", 2: "crop"}
REJECTS: dict[str, Callable[[set[str]], bool]] = {
    "either": lambda seen: bool(seen & {"finder", "whole"}),
    "agree": lambda seen: "finder" in seen and bool(seen & {"whole", "crop"}),
    "confirm": lambda seen: {"finder", "crop"} <= seen,
}


def seen_on(part_id: str | None) -> set[str]:
    """Who finds something on the image of a part: image n - 1 is shown at trigger n."""
    number = (int(part_id or 0) - 1) % IMAGES
    return {name for bit, name in BITS.items() if number >> bit & 1}


@pytest.fixture
def pair(site: Any) -> Any:
    stamped = runpy.run_path(str(ASSETS / "stamps.py"))["stamped"]

    def write(on: str, verdict: str) -> None:
        (site.folder / "none.json").write_text("{}")
        site.write(site.camera(rate=50), rules=CLASSIFIER.format(on=on, verdict=verdict))
        write_feed(site.folder / "images.feed", (stamped(number) for number in range(IMAGES)))

    site.write_pair = write
    return site


def reload(site: Any, *changes: tuple[str, str]) -> None:
    """As an engineer would: the product file first, then the request."""
    path = site.folder / "product.toml"
    text = path.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    with zmq.Context() as context, context.socket(zmq.DEALER) as asker:
        asker.setsockopt(zmq.LINGER, 0)
        asker.setsockopt(zmq.RCVTIMEO, 20_000)
        asker.connect(f"tcp://127.0.0.1:{site.channel_port}")
        asker.send_json({"type": "hello", "no": 1, "name": "engineer-1"})
        asker.recv()
        asker.send_json({"type": "command", "no": 2, "name": "reload"})
        reply = requests.decode_reply(asker.recv())
    assert isinstance(reply, Done), reply


def rows(defects: Any) -> list[tuple[str, str, float, bool]]:
    return [(one.source, one.name, round(one.score, 4), one.counted) for one in defects]


def decided(wire: Any, version: str) -> list[Any]:
    return [one for one in wire.verdicts if one.product_version == version and one.outcome is not Outcome.UNINSPECTED]


def test_each_way_to_one_verdict_and_what_is_kept_of_both(pair: Any) -> None:
    pair.write_pair("both", "either")
    running, wire = pair.run("pair"), pair.wire()
    wire.until(lambda: len(decided(wire, "1")) > IMAGES, "verdicts of either")
    reload(pair, ('version = "1"', 'version = "2"'), ('verdict = "either"', 'verdict = "agree"'))
    wire.until(lambda: len(decided(wire, "2")) > IMAGES, "verdicts of agree")
    reload(pair, ('version = "2"', 'version = "3"'), ('verdict = "agree"', 'verdict = "confirm"'))
    wire.until(lambda: len(decided(wire, "3")) > IMAGES, "verdicts of confirm")
    _, metrics = pair.get("/metrics")
    assert running.end() == ExitCode.OK, running.said
    wire.rest()
    assert "Traceback" not in running.said
    assert wire.lost == 0

    for version, verdict in (("1", "either"), ("2", "agree"), ("3", "confirm")):
        for one in decided(wire, version):
            seen = seen_on(one.part_id)
            assert (one.outcome is Outcome.REJECT) == REJECTS[verdict](seen), (verdict, seen, rows(one.defects))
            found = [(row.source, row.name, round(row.score, 4)) for row in one.defects]
            wanted = [("finder", "bright", 0.95 if "finder" in seen else 0.25), ("looker", "bright", 0.75 if "whole" in seen else 0.125)]
            if "finder" in seen:
                wanted.append(("looker", "bright", 0.75 if "crop" in seen else 0.125))
            assert found == wanted, seen
            assert {row.source for row in one.defects if row.counted} <= ({"finder"} if verdict == "confirm" else {"finder", "looker"})
            assert len(set(one.engines)) == 2
            assert one.times.engine_ms > 0
    with pair.read() as journal:
        logged = {part.part_no: (part.outcome, part.product_version, part.engines, rows(part.defects)) for part in journal.parts()}
    sent = {one.part_no: (one.outcome, one.product_version, one.engines, rows(one.defects)) for one in wire.verdicts}
    assert sent == logged
    counts = {line.split()[0] for line in metrics.splitlines() if line.startswith("inspector_defects_total{")}
    assert counts == {f'inspector_defects_total{{class="{name}"}}' for name in ("bright", "dark", "mark")}


def test_a_classifier_that_fails_leaves_its_parts_uninspected_and_no_others(pair: Any) -> None:
    pair.write_pair("image", "either")
    running, wire = pair.run("pair,throw_every=5"), pair.wire()
    wire.until(lambda: len(wire.verdicts) > 60, "verdicts")
    assert running.end() == ExitCode.OK, running.said
    wire.rest()
    failed = [one for one in wire.verdicts if one.reason is Reason.ENGINE_ERROR]
    assert len(failed) >= 10
    for one in failed:
        assert one.detail.startswith("looker: call ")
        assert one.detail.endswith("fails on purpose")
        assert one.defects == ()
    # The classifier saw one image per part, after three of noise: every fifth call, and the others have the verdict of their own image.
    inspected = [one for one in wire.verdicts if one.outcome is not Outcome.UNINSPECTED]
    assert all((one.outcome is Outcome.REJECT) == REJECTS["either"](seen_on(one.part_id)) for one in inspected)
    assert {int(one.part_id) % 5 for one in failed} == {2}
    assert {one.reason for one in wire.verdicts} <= {None, Reason.ENGINE_ERROR, Reason.SHUTDOWN}


def test_a_classifier_that_is_lost_ends_the_station(pair: Any) -> None:
    """Three failures in a row open it anew; three more, and nothing is inspected any more: the line must hear silence."""
    pair.write_pair("image", "confirm")
    running, wire = pair.run("pair,throw_at=20x9999"), pair.wire()
    wire.until(lambda: running.process.poll() is not None, "the end")
    assert running.wait() == ExitCode.ENGINE, running.said
    wire.rest()
    assert "engine 'looker' failed again after it was opened anew" in running.said
    assert "Traceback" not in running.said
    with pair.read() as journal:
        parts = {int(part.part_id or 0): (part.outcome, part.reason) for part in journal.parts()}
    reasons = Counter(reason for _, reason in parts.values())
    assert set(reasons) <= {None, Reason.ENGINE_ERROR, Reason.SHUTDOWN}
    assert reasons[Reason.ENGINE_ERROR] >= 6
    first = min(number for number, (_, reason) in parts.items() if reason == Reason.ENGINE_ERROR)
    assert all(outcome == Outcome.UNINSPECTED for number, (outcome, _) in parts.items() if number >= first)
