"""A second client, in C++ and written from docs/line-protocol.md alone, beside the real daemon: its decisions are compared with the journal."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "second_client" / "client.cpp"
Lossy = run_path(str(Path(__file__).resolve().parents[1] / "assets" / "lossy_wire.py"))["Lossy"]


class SecondClient:
    """The program, and what it says."""

    def __init__(self, program: Path, publisher: str, requests: str) -> None:
        self._process = subprocess.Popen([str(program), publisher, requests], stdout=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def has(self, pattern: str, after: int = 0) -> bool:
        return any(re.match(pattern, line) for line in self.lines[after:])

    def passed(self, after: int = 0) -> list[tuple[str, int]]:
        """Boot and number of the parts that it lets pass."""
        return [(found[1], int(found[2])) for line in self.lines[after:] if (found := re.match(r"PASS (\w+) top (\d+) ", line))]

    def refused(self, cause: str = r"\w+") -> list[tuple[str, int]]:
        return [(found[1], int(found[2])) for line in self.lines if (found := re.match(rf"NO (\w+) top (\d+) \S+ {cause}$", line))]

    def close(self) -> None:
        assert self._process.poll() is None, "it has ended by itself"
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("g++") is None or not Path("/usr/include/zmq.h").exists():
        pytest.skip("no C++ compiler, or no libzmq3-dev")
    built = tmp_path_factory.mktemp("second") / "client"
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(built), str(SOURCE), "-lzmq"]
    subprocess.run(command, check=True, timeout=100)
    return built


@pytest.fixture
def begin(site: Any, program: Path) -> Iterator[Callable[..., tuple[SecondClient, Any]]]:
    made: list[Any] = []

    def start(loss: float) -> tuple[SecondClient, Any]:
        between = Lossy(site.port, loss)
        made.append(between)
        made.append(SecondClient(program, between.endpoint, f"tcp://127.0.0.1:{site.channel_port}"))
        return made[-1], between

    yield start
    for one in reversed(made):
        one.close()


def journal(site: Any) -> dict[tuple[str, int], bool]:
    with site.read() as reader:
        return {(part.boot_id, part.part_no): part.outcome == "PASS" for part in reader.parts()}


def compare(site: Any, client: SecondClient) -> dict[tuple[str, int], bool]:
    """Nothing passed that the journal does not pass, and nothing was decided twice."""
    truth = journal(site)
    assert all(truth[part] for part in client.passed())
    decided = client.passed() + client.refused()
    assert len(decided) == len(set(decided))
    return truth


def test_it_is_short() -> None:
    assert len(SOURCE.read_text().splitlines()) < 200


def test_losses_are_repaired_and_everything_passes_that_should(site: Any, begin: Any, wait_for: Any) -> None:
    site.write(site.camera(rate=100, parts=400), channel="repair_ms = 2000")
    running = site.run()
    client, between = begin(0.1)
    wait_for(lambda: client.has(r"(PASS|NO) \w+ top 400 "), "the last decision")
    assert running.end() == 0
    assert between.lost > 10
    assert client.has("REPAIRED")
    assert not client.has("GIVEN UP")
    truth = compare(site, client)
    first = min(no for _, no in client.passed())
    assert set(client.passed()) == {part for part, passes in truth.items() if passes and part[1] >= first}
    assert len(client.passed()) > 150


def test_losses_that_are_not_repaired_do_not_pass(site: Any, begin: Any, wait_for: Any) -> None:
    site.write(site.camera(rate=100), channel="repair_ms = 0.001")
    running = site.run()
    client, _ = begin(0.05)
    wait_for(lambda: client.refused("gap") and len(client.passed()) > 50, "parts that do not pass for a gap, and parts that do")
    assert client.has("GIVEN UP")
    assert running.end() == 0
    compare(site, client)


def test_a_lost_camera_a_killed_station_and_its_next_start(site: Any, begin: Any, wait_for: Any) -> None:
    site.write(site.camera(rate=100))
    running = site.run()
    client, _ = begin(0.0)
    wait_for(lambda: len(client.passed()) > 20, "parts that pass")
    for camera in running.cameras():
        camera.kill()
    seen = len(client.lines)
    wait_for(lambda: len(client.passed(seen)) > 20, "parts pass when the camera is back")
    running.end(signal.SIGKILL)
    wait_for(lambda: client.has("STATE dead"), "dead")
    seen = len(client.lines)
    again = site.run()
    wait_for(lambda: len(client.passed(seen)) > 20, "parts of the next boot pass")
    assert client.has("STATE boot", seen)
    assert client.has("STATE live top", seen)
    assert again.end() == 0
    compare(site, client)
    assert len({boot for boot, _ in client.passed()}) == 2
