"""``inspector watch`` beside a real station: a gap and its repair, a blind interval, a dead station, its next start.

The test reads what it says; run as a script, it writes the captures of docs/watch.md anew: python tests/assets/watch_story.py
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30.0
Lossy = run_path(str(ROOT / "tests" / "assets" / "lossy_wire.py"))["Lossy"]


class Watching:
    """``inspector watch`` as a process, and its lines."""

    def __init__(self, publisher: str, requests: str) -> None:
        command = [sys.executable, "-u", "-m", "inspector.cli.main", "watch", publisher, "--requests", requests]
        environment = os.environ | {"NO_COLOR": "1"}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait_for(self, pattern: str, after: int = 0) -> int:
        """The index of the first line from ``after`` on that has ``pattern``."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            for index in range(after, len(self.lines)):
                if re.search(pattern, self.lines[index]):
                    return index
            time.sleep(0.01)
        raise AssertionError(f"{pattern!r} was not said within {PATIENCE_S} s: {self.lines[-20:]}")

    def end(self) -> str:
        """Ctrl-C; the last line."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(20)
        assert self._process.stderr is not None
        return self._process.stderr.read().strip().splitlines()[-1]

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


def tell(site: Any) -> dict[str, list[str]]:
    """The scenes' lines. ``site``: a station that is written."""
    with contextlib.ExitStack() as stack:
        lossy = Lossy(site.port, 0.0)
        stack.callback(lossy.close)
        watching = Watching(lossy.endpoint, f"tcp://127.0.0.1:{site.channel_port}")
        stack.callback(watching.close)
        running = site.run()
        live = watching.wait_for(r"LIVE  boot \w+, product plate 1: parts may pass")
        scenes = {"live": watching.lines[max(0, live - 2) : live + 1]}

        start = watching.wait_for("PASS", live)
        lossy.to_lose = 3
        gap = watching.wait_for("top  GAP  3 messages lost after number", start)
        repaired = watching.wait_for("top  REPAIRED  3 messages up to number", gap)
        after = watching.wait_for("PASS|REJECT", repaired + 1)
        scenes["gap"] = watching.lines[gap - 1 : after + 1]

        for camera in running.cameras():
            camera.kill()
        blind = watching.wait_for("top  BLIND  from .* and goes on", after)
        sees = watching.wait_for("top  BLIND  from .* to ", blind)
        after = watching.wait_for("PASS|REJECT", sees + 1)
        scenes["blind"] = watching.lines[blind - 1 : after + 1]

        orphans = running.cameras()
        running.process.kill()
        psutil.wait_procs(orphans, PATIENCE_S)
        dead = watching.wait_for("top  DEAD  no heartbeat for", after)
        scenes["dead"] = watching.lines[dead - 1 : dead + 1]

        site.run()
        boot = watching.wait_for(r"BOOT  the station was started anew \(\w+ -> \w+\)", dead)
        live = watching.wait_for("LIVE", boot)
        after = watching.wait_for("PASS|REJECT", live)
        scenes["boot"] = watching.lines[boot : after + 1]
        scenes["summary"] = [watching.end()]
    return scenes


def _site(folder: Path) -> Iterator[Any]:
    made = SimpleNamespace(**run_path(str(ROOT / "tests" / "integration" / "conftest.py")))
    network = made.read_network(ROOT / "tests" / "assets" / "tiny.onnx")
    (folder / "tiny.onnx").write_bytes((ROOT / "tests" / "assets" / "tiny.onnx").read_bytes())
    engine = folder / f"tiny{made.SUFFIX}"
    engine.write_bytes(made.encode_manifest(made.new_manifest(network, folder)))
    with contextlib.ExitStack() as stack:
        site = made.Site(folder, engine, stack=stack)
        site.write(site.camera(rate=40))
        yield site


def write_captures(document: Path) -> None:
    """Each block of ``document`` that follows ``<!-- capture: NAME -->`` is written anew."""
    with tempfile.TemporaryDirectory() as folder:
        (scenes,) = [tell(site) for site in _site(Path(folder))]
    text = document.read_text()
    for name, lines in scenes.items():
        block = "\n".join(line.rstrip() for line in lines)
        pattern = rf"(<!-- capture: {name} -->\n```text\n).*?(\n```)"
        text, found = re.subn(pattern, lambda match, block=block: match[1] + block + match[2], text, flags=re.DOTALL)
        assert found == 1, f"{document}: no place for the capture {name!r}"
    document.write_text(text)


if __name__ == "__main__":
    write_captures(ROOT / "docs" / "watch.md")
