"""The running daemon as others see it: a real Prometheus, ``inspector log`` and ``inspector watch``."""

from __future__ import annotations

import csv
import http.client
import io
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from typing import Any
from urllib.parse import quote

import pytest

from inspector.contract.errors import ExitCode

SCRAPES = """
global:
  scrape_interval: 200ms
  scrape_timeout: 200ms
scrape_configs:
  - job_name: inspector
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def _query(port: int, expression: str) -> list[dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", f"/api/v1/query?query={quote(expression)}")
        return list(json.loads(connection.getresponse().read())["data"]["result"])
    except (OSError, ValueError, KeyError):
        return []  # it is not up yet
    finally:
        connection.close()


def _inspector(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inspector.cli.main", *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(shutil.which("prometheus") is None or shutil.which("promtool") is None, reason="no Prometheus is installed")
def test_a_real_prometheus_counts_what_the_journal_has(site: Any, free_port: int, wait_for: Any) -> None:
    site.write(site.camera(parts=60, faults="drop_at=20,black_at=31"))
    (site.folder / "prometheus.yml").write_text(SCRAPES.format(port=site.metrics_port))
    running, wire = site.run(), site.wire()
    options = [
        f"--config.file={site.folder}/prometheus.yml",
        f"--storage.tsdb.path={site.folder}/tsdb",
        f"--web.listen-address=127.0.0.1:{free_port}",
    ]
    with (site.folder / "prometheus.log").open("wb") as log, subprocess.Popen(["prometheus", *options], stdout=log, stderr=log) as prometheus:
        try:
            wire.until(lambda: len(wire.verdicts) == 60, "60 verdicts")
            wait_for(lambda: any(float(one["value"][1]) == 60 for one in _query(free_port, "sum(inspector_parts_total)")), "a scrape")
            found = {
                (one["metric"]["outcome"], one["metric"].get("reason", "")): int(one["value"][1])
                for one in _query(free_port, "inspector_parts_total")
                if float(one["value"][1])
            }
            books = {one["metric"]["__name__"]: float(one["value"][1]) for one in _query(free_port, '{__name__=~"inspector_ledger_.*"}')}
            up = _query(free_port, "up")
            median = _query(free_port, "histogram_quantile(0.5, inspector_latency_seconds_bucket{stage='total'})")
        finally:
            prometheus.terminate()
    status, text = site.get("/metrics")
    assert status == 200
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    status, health = site.get("/healthz")
    checks = dict.fromkeys(("inspection", "ledger", "journal", "cameras", "alarms"), "ok")
    assert (status, json.loads(health)) == (200, {"status": "ok", "checks": checks})
    assert running.end() == ExitCode.OK, running.said
    with site.read() as journal:
        logged = Counter((part.outcome, part.reason or "") for part in journal.parts())
        rejects = sum(defect.counted for part in journal.parts() for defect in part.defects)
    assert found == dict(logged)
    assert logged["UNINSPECTED", "no_frame"] == 1
    assert logged["UNINSPECTED", "image_invalid"] == 1
    assert books == {"inspector_ledger_opened_total": 60, "inspector_ledger_closed_total": 60, "inspector_ledger_pending": 0}
    assert [one["value"][1] for one in up] == ["1"]
    assert 0 < float(median[0]["value"][1]) < 5
    assert f'inspector_defects_total{{class="bright"}} {rejects}.0' in text.splitlines()


def test_log_and_watch_beside_a_running_station(site: Any) -> None:
    site.write(site.camera(parts=200, rate=20))
    running, wire = site.run(), site.wire()
    wire.until(lambda: len(wire.verdicts) >= 10, "verdicts")
    watched = _inspector("watch", site.station, "--count", 5, "--json")
    assert watched.returncode == 0, watched.stderr
    messages = [json.loads(line) for line in watched.stdout.splitlines()]
    verdicts = [message for message in messages if message["type"] == "verdict"]
    assert len(verdicts) == 5
    assert "5 verdicts: " in watched.stderr
    shown = _inspector("log", site.station, "--limit", 3)
    assert shown.returncode == 0, shown.stderr
    assert "3 parts shown; the journal has PASS" in shown.stdout
    assert running.end(signal.SIGINT) == ExitCode.OK, running.said
    wire.rest()
    as_json = _inspector("log", site.state, "--json", "-")
    as_csv = _inspector("log", site.state, "--csv", "-")
    rows = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert [(row["part_no"], row["outcome"]) for row in rows] == [
        (one.part_no, one.outcome) for one in sorted(wire.verdicts, key=lambda one: one.seq)
    ]
    assert [(int(row["part_no"]), row["outcome"]) for row in csv.DictReader(io.StringIO(as_csv.stdout))] == [
        (row["part_no"], row["outcome"]) for row in rows
    ]
    sent = {one.part_no: one for one in wire.verdicts}
    for verdict in verdicts:
        assert sent[verdict["part_no"]].outcome == verdict["outcome"]
    only = _inspector("log", site.journal, "--outcome", "reject", "--class", "bright", "--json", "-")
    rejected = [json.loads(line)["part_no"] for line in only.stdout.splitlines()]
    assert rejected == [row["part_no"] for row in rows if row["outcome"] == "REJECT"]
    assert rejected
