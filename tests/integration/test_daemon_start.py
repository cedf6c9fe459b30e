"""What is wrong is told before anything is started: one clear sentence, a named exit code, nothing left behind."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from inspector.contract.errors import ExitCode


def untouched(site: Any) -> bool:
    return not site.state.exists() and not any(site.folder.glob("line-*/*"))


@pytest.mark.parametrize("command", ["run", "check"])
def test_every_problem_of_both_files_is_told_at_once(site: Any, command: str) -> None:
    site.write(extra="port_number = 1", rules='[detector.classes.bright]\nthreshold = 3.5\n[[detector.regions]]\nx1_px = "left"')
    text = site.station.read_text().replace('trigger = "line"', 'trigger = "sometimes"').replace('"images.feed"', '"no.feed"')
    site.station.write_text(text.replace(f"port = {site.metrics_port}", "port = 70000"))
    product = site.folder / "product.toml"
    product.write_text(product.read_text().replace('version = "1"\n', ""))
    code, said = site.complain(command)
    assert code == ExitCode.CONFIG
    for file, key in (
        (site.station, "metrics.port_number: unknown key"),
        (site.station, "metrics.port: Input should be less than"),
        (site.station, "cameras.0.trigger: "),
        (product, "version: is missing"),
        (product, "detector.classes.bright.threshold: "),
        (product, "detector.regions.0.x1_px: "),
        (product, "detector.regions.0.x2_px: is missing"),
    ):
        assert [line for line in said if line.startswith(f"{file}: {key}")], (key, said)
    assert untouched(site)


def test_files_that_are_missing_are_told_with_the_rest(site: Any) -> None:
    site.engine = site.folder / "absent.engine.json"
    site.write(rules="colour = 3")
    site.station.write_text(site.station.read_text().replace('"images.feed"', '"no.feed"'))
    code, said = site.complain("check")
    assert code == ExitCode.CONFIG
    assert any(f"cameras.0.images: no such file: {site.folder / 'no.feed'}" in line for line in said), said
    assert any("detector.colour: unknown key" in line for line in said), said
    product = site.folder / "product.toml"
    product.write_text(product.read_text().replace("colour = 3", ""))
    code, said = site.complain("check")
    assert code == ExitCode.CONFIG
    assert any("detector.engine: no such file" in line and "inspector compile" in line for line in said), said
    assert any("cameras.0.images: no such file" in line for line in said), said
    product.unlink()
    code, said = site.complain("check")
    assert (code, len([line for line in said if "product.toml: no such file" in line])) == (ExitCode.CONFIG, 1), said


def test_a_producer_that_is_not_there_is_a_wrong_station_file(site: Any) -> None:
    site.write()
    text = site.station.read_text().replace('kind = "simulator"', 'kind = "genicam"\nproducer = "vendor.cti"')
    site.station.write_text(text)
    code, said = site.complain()
    assert code == ExitCode.CONFIG
    assert any("cameras.0.producer: no such file" in line for line in said), said
    assert untouched(site)


def test_check_tells_what_would_run(site: Any, capfd: pytest.CaptureFixture[str]) -> None:
    site.write()
    code, said = site.complain("check")
    assert (code, said) == (ExitCode.OK, [])
    assert untouched(site)


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_class_that_the_engine_has_not(site: Any, command: str) -> None:
    site.write(
        rules="[detector.classes.scratch]\nthreshold = 0.5\n[detector.classes.bright]\nthreshold = 0.5\n[detector.classes.dent]\nignore = true"
    )
    code, said = site.complain(command)
    assert code == ExitCode.CONFIG
    assert len(said) == 2
    assert all("detector.classes." in line and "bright, dark" in line for line in said)
    assert untouched(site)


def _copy(site: Any) -> Path:
    folder = site.folder / "engine"
    shutil.copytree(site.engine.parent, folder)
    return folder / site.engine.name


def test_a_damaged_engine(site: Any) -> None:
    site.engine = _copy(site)
    onnx = site.engine.with_name("tiny.onnx")
    onnx.write_bytes(onnx.read_bytes()[:-7])
    site.write()
    for command in ("run", "check"):
        code, said = site.complain(command)
        assert code == ExitCode.ENGINE
        assert len(said) == 1, said
        assert "SHA-256 differs" in said[0]
        assert "inspector compile" in said[0]
    assert untouched(site)


def test_another_machines_engine(site: Any) -> None:
    site.engine = _copy(site)
    manifest = json.loads(site.engine.read_text())
    manifest["device"]["architecture"] = "riscv64"
    site.engine.write_text(json.dumps(manifest))
    site.write()
    code, said = site.complain()
    assert code == ExitCode.ENGINE
    assert len(said) == 1, said
    assert "riscv64" in said[0]
    assert untouched(site)


@pytest.mark.parametrize("which", ["publisher", "channel", "metrics"])
def test_a_port_that_is_taken(site: Any, which: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        if which == "publisher":
            site.port = port
        elif which == "channel":
            site.channel_port = port
        else:
            site.metrics_port = port
        site.write()
        code, said = site.complain()
    assert code == ExitCode.UNAVAILABLE
    assert len(said) == 1, said
    assert str(port) in said[0]
    assert f"{which}." in said[0], "the sentence names the key to change"
    assert not any(site.folder.glob("line-*/*")), "a camera was started"


@pytest.mark.parametrize("kind", ["no folder", "damaged", "taken"])
def test_a_journal_that_cannot_be_written(site: Any, kind: str) -> None:
    site.write()
    site.state.mkdir()
    if kind == "no folder":
        site.write(extra='[journal]\npath = "blocked/journal.sqlite"')
        (site.state / "blocked").write_text("")
    elif kind == "damaged":
        site.journal.write_bytes(b"this is no SQLite file" * 500)
    else:
        first = site.run()
        first.wait_ready()
        site.write(extra="")
        # Its own ports and recorder, the same journal.
        text = site.station.read_text().replace(str(site.port), "0").replace(str(site.metrics_port), "0")
        site.station.write_text(text.replace(":0", ":*").replace("state_dir =", 'runtime_dir = "other"\nstate_dir ='))
    code, said = site.complain()
    assert code == ExitCode.JOURNAL
    assert len(said) == 1, said
    assert "journal" in said[0]
    if kind == "taken":
        assert f"process {first.process.pid}" in said[0]
        assert first.end() == ExitCode.OK
