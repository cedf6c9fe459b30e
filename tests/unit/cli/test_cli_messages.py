"""Messages on stderr: whoever does not read them holds up nobody, and what was dropped is told."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import logging, sys
from inspector.cli.messages import BackgroundHandler
logging.basicConfig(handlers=[BackgroundHandler(most=50)], level=logging.INFO, format="%(message)s")
for number in range(int(sys.argv[1])):
    logging.info("line %d %s", number, "x" * 1000)
print("said", flush=True)
sys.stdin.readline()
logging.info("the end")
"""


def start(lines: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(lines)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_was_said_is_there_at_the_end() -> None:
    with start(40) as process:
        said, lines = process.communicate("go\n")
    assert process.returncode == 0
    assert said == "said\n"
    assert [line.split(" x")[0] for line in lines.splitlines()] == [*(f"line {number}" for number in range(40)), "the end"]


def test_a_reader_that_stands_still_holds_up_nobody() -> None:
    with start(5000) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "said\n", "it waited for its reader"
        _, lines = process.communicate("go\n")
    assert process.returncode == 0
    kept = lines.splitlines()
    assert kept[0].startswith("line 0 ")
    dropped = [int(line.split()[1]) for line in kept if line.startswith("WARNING ")]
    assert sum(dropped) > 4000
    assert sum(dropped) + sum(line.startswith(("line ", "the end")) for line in kept) == 5001


def test_a_reader_that_never_comes_back_does_not_keep_the_process() -> None:
    reading, writing = os.pipe()
    try:
        with subprocess.Popen([sys.executable, "-c", PROGRAM, "5000"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=writing) as process:
            process.communicate(b"go\n", timeout=60)
        assert process.returncode == 0
    finally:
        os.close(reading)
        os.close(writing)
