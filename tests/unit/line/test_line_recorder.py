"""The flight recorder: what it has stored is read back after any end, and it never loses silently."""

from __future__ import annotations

import os
import platform
import random
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.contract.errors import AddressError, ConfigError, ExitCode
from inspector.contract.records import Action, ClosedPart, ClosedView, Defect, Outcome, Picture, Reason, StageTimes, View
from inspector.line import record_file as layout
from inspector.line import recorder as room
from inspector.line.parts import Opened
from inspector.line.record_file import About, OpenRecord, UnreadableRecordingError, read_recording
from inspector.line.recorder import FlightRecorder

MADE = SimpleNamespace(**run_path(str(Path(__file__).parents[2] / "assets" / "closed_parts.py")))
ABOUT = About(
    station="s",
    boot_id="boot-1",
    program="inspectord 1",
    machine_boot="m",
    started_utc_ns=1,
    product="plate",
    product_version="1",
    engines=("ab",),
    uninspected=Action.STOP,
)
SMALL = 256 * 1024


@contextmanager
def recording(folder: Path, size_bytes: int = SMALL, about: About = ABOUT, alive_ns: int = 0) -> Iterator[FlightRecorder]:
    recorder = FlightRecorder(folder, "s", size_bytes)
    recorder.lock()
    try:
        recorder.start(about, alive_ns)
        yield recorder
    finally:
        recorder.stop()


def opened(number: int, stream: str = "top") -> Opened:
    return Opened(stream, number, f"P{number}", 1000 * number, 1000 * number + 1, 1000 * number + 500)


def kept(number: int, stream: str = "top", version: str = "1", uninspected: Action = Action.STOP) -> OpenRecord:
    return OpenRecord(stream, number, f"P{number}", 1000 * number, 1000 * number + 1, 1000 * number + 500, version, uninspected)


def part(number: int, outcome: Outcome = Outcome.PASS, **changes: Any) -> ClosedPart:
    return MADE.make_part(number, outcome, **changes)


def test_what_was_opened_and_closed_is_read_back(tmp_path: Path) -> None:
    parts = [part(1), part(2, Outcome.REJECT), part(3, Outcome.UNINSPECTED, reason=Reason.LATE, detail="zu spät"), part(4, views=())]
    with recording(tmp_path) as recorder:
        for number in range(1, 6):
            recorder.opened(opened(number))
        numbers = [recorder.closed(one) for one in parts]
        recorder.beat(123_456_789)
        left = read_recording(recorder.path)
        assert recorder.state().open == 1
    assert numbers == [1, 2, 3, 4]
    assert left.closed == tuple(parts)
    assert left.open == (kept(5),)
    assert left.about == ABOUT
    assert left.alive_ns == 123_456_789
    assert left.seen_ns == {"top": max(one.exposure_ns for one in parts)}
    assert (left.clean, left.damaged_bytes, left.overwritten) == (False, 0, 0)


def test_a_part_keeps_the_rules_that_it_was_opened_under(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        recorder.opened(opened(1))
        recorder.use("2", Action.DIVERT)
        recorder.opened(opened(2))
        assert read_recording(recorder.path).open == (kept(1), kept(2, version="2", uninspected=Action.DIVERT))


def test_of_pictures_only_that_they_were_taken_is_recorded(tmp_path: Path) -> None:
    picture = Picture("top", np.zeros((8, 8), np.uint8), 3)
    with recording(tmp_path) as recorder:
        recorder.closed(part(1, Outcome.REJECT, pictures=(picture,)))
        (one,) = read_recording(recorder.path).closed
    assert one.views[0].picture is not None
    assert one.views[0].picture.camera == "top"
    assert one.views[0].picture.pixels.size == 0


def test_values_at_their_limits(tmp_path: Path) -> None:
    view = msgspec.structs.replace(part(1).views[0].view, frame_id=2**64 - 1, encoder=-(2**63), trigger_counter=None, reason=Reason.OVERRUN)
    closed = ClosedView(view, Outcome.UNINSPECTED, Reason.OVERRUN, "", StageTimes(), None)
    bare = Defect("scratch", 0.5, MADE.make_defect().box_px, False, "net", "top")
    one = part(1, views=(closed, closed), defects=(bare, MADE.make_defect()), times=StageTimes(), part_id=None, engines=())
    with recording(tmp_path) as recorder:
        recorder.closed(one)
        assert read_recording(recorder.path).closed == (one,)


def test_a_change_of_what_is_recorded_needs_a_new_version() -> None:
    types = (ClosedPart, ClosedView, View, Defect, StageTimes, About, OpenRecord)
    names = " ".join(",".join(one.__struct_fields__) for one in types)
    known = {1: 3931529217}
    assert known[layout.VERSION] == zlib.crc32(names.encode()), "give record_file.VERSION a new number, and the checksum here"


def test_what_is_committed_is_not_read_again_but_what_is_missing_is(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        for number in range(1, 11):
            recorder.opened(opened(number))
            recorder.closed(part(number))
        recorder.committed(8)
        assert [one.part_no for one in read_recording(recorder.path).closed] == [9, 10]
        recorder.committed(10, ((4, 5),))
        left = read_recording(recorder.path)
        assert [one.part_no for one in left.closed] == [4, 5, 6, 7, 8, 9, 10]
        assert left.open == ()


def test_after_a_clean_stop_only_the_header_is_left(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        recorder.opened(opened(1))
        recorder.closed(part(1, exposure_ns=77))
        recorder.committed(1)
        recorder.beat(99)
    assert recorder.path.stat().st_size == layout.PAGE_BYTES
    left = read_recording(recorder.path)
    assert (left.clean, left.alive_ns, left.closed, left.open) == (True, 99, (), ())
    assert set(left.seen_ns) == {"top"}


@pytest.mark.parametrize("left_open", [True, False])
def test_a_stop_that_leaves_something_leaves_it_in_the_file(tmp_path: Path, left_open: bool) -> None:
    with recording(tmp_path) as recorder:
        recorder.opened(opened(1))
        if not left_open:
            recorder.closed(part(1))
    left = read_recording(recorder.path)
    assert not left.clean
    assert (len(left.open), len(left.closed)) == ((1, 0) if left_open else (0, 1))


def test_the_ring_turns_round_and_keeps_what_is_open(tmp_path: Path) -> None:
    """Many laps; everything is committed at once, but for two parts that stay open over all laps."""
    rng = random.Random(5)
    with recording(tmp_path) as recorder:
        recorder.opened(opened(1, "side"))
        recorder.opened(opened(2, "side"))
        for number in range(1, 4001):
            recorder.opened(opened(number))
            assert recorder.closed(part(number, detail="x" * rng.randrange(400))) == number
            recorder.committed(number)
        state, left = recorder.state(), read_recording(recorder.path)
        assert recorder._head > 5 * SMALL
        assert state.overwritten == 0
        assert state.used_bytes <= state.size_bytes
        assert {(one.stream, one.part_no) for one in left.open} == {("side", 1), ("side", 2)}
        assert left.open[0] == kept(left.open[0].part_no, "side")
        assert left.damaged_bytes == 0


def test_what_the_journal_lacks_is_overwritten_only_when_the_ring_is_full_and_is_counted(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        for number in range(1, 2001):
            recorder.closed(part(number))
        left, state = read_recording(recorder.path), recorder.state()
        assert state.overwritten == left.overwritten > 0
        assert [one.part_no for one in left.closed] == list(range(state.overwritten + 1, 2001))


def test_runs_that_the_journal_refused_are_counted_and_nothing_else(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        missing = ((10, 12), (20, 20))
        for number in range(1, 3001):
            recorder.closed(part(number))
            recorder.committed(number, tuple(run for run in missing if run[0] <= number))
        assert recorder.state().overwritten == 4
        assert read_recording(recorder.path).closed == (), "what was overwritten holds the watermark back no longer"


def test_more_open_parts_than_the_ring_holds_are_counted(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        for number in range(1, 8001):
            recorder.opened(opened(number))
        state, left = recorder.state(), read_recording(recorder.path)
    assert state.overwritten > 0
    assert state.overwritten + len(left.open) == 8000


def test_what_cannot_be_recorded_is_counted_and_ends_nothing(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        assert recorder.closed(part(1, detail="x" * SMALL)) == 0
        assert recorder.closed(part(2, part_no=2**70)) == 0
        recorder.opened(Opened("top", 2**70, None, 0, 0, 0))
        assert recorder.state().unrecorded == 3
        assert recorder.closed(part(3)) == 1


def test_after_the_stop_nothing_is_touched(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        recorder.closed(part(1))
    recorder.beat(1)
    recorder.committed(1)
    assert recorder.closed(part(2)) == 0
    assert recorder.stop()
    assert [one.part_no for one in read_recording(recorder.path).closed] == [1]


def _bytes_of(folder: Path) -> tuple[bytes, list[int]]:
    """A file with 40 parts, and where the record of each ends."""
    ends = []
    with recording(folder) as recorder:
        for number in range(1, 41):
            recorder.closed(part(number))
            ends.append(recorder._head)
        data = recorder.path.read_bytes()
    return data, ends


@settings(max_examples=300)
@given(at=st.integers(0, 40 * 800), value=st.integers(1, 255))
def test_a_damaged_byte_takes_nothing_of_what_was_before_it(tmp_path: Path, at: int, value: int) -> None:
    data, ends = _bytes_of(tmp_path)
    broken = bytearray(data)
    broken[layout.PAGE_BYTES + at] ^= value
    path = tmp_path / "broken"
    path.write_bytes(broken)
    left = read_recording(path)
    first = next((number for number, end in enumerate(ends) if at < end), 40)
    start = ends[first - 1] if first else 0
    length = layout.RECORD_HEAD.unpack_from(data, layout.PAGE_BYTES + start)[1] if first < 40 else 0
    whole = 40 if at >= start + layout.RECORD_BYTES + length else first  # what is between two records means nothing
    assert [one.part_no for one in left.closed] == list(range(1, whole + 1))
    assert (left.damaged_bytes > 0) == (whole < 40)


@settings(max_examples=150)
@given(size=st.integers(0, layout.PAGE_BYTES + 40 * 800))
def test_a_file_cut_anywhere_gives_what_is_whole(tmp_path: Path, size: int) -> None:
    data, ends = _bytes_of(tmp_path)
    path = tmp_path / "cut"
    path.write_bytes(data[:size])
    if size < layout.PAGE_BYTES:
        with pytest.raises(UnreadableRecordingError):
            read_recording(path)
        return
    left = read_recording(path)
    whole = sum(end <= size - layout.PAGE_BYTES + 7 for end in ends)  # the padding behind a record may be cut
    assert len(left.closed) in {whole, whole - 1}
    assert [one.part_no for one in left.closed] == list(range(1, len(left.closed) + 1))
    assert len(left.closed) >= sum(end <= size - layout.PAGE_BYTES for end in ends)


@settings(max_examples=100)
@given(at=st.integers(0, layout.FIXED.size - 1), value=st.integers(1, 255))
def test_a_damaged_header_is_told(tmp_path: Path, at: int, value: int) -> None:
    data, _ = _bytes_of(tmp_path)
    broken = bytearray(data)
    broken[at] ^= value
    path = tmp_path / "broken"
    path.write_bytes(broken)
    with pytest.raises(UnreadableRecordingError):
        read_recording(path)


def test_an_unknown_version_is_told(tmp_path: Path) -> None:
    data = bytearray(_bytes_of(tmp_path)[0])
    struct.pack_into("<I", data, 8, layout.VERSION + 1)
    (tmp_path / "new").write_bytes(data)
    with pytest.raises(UnreadableRecordingError, match=f"of version {layout.VERSION + 1}"):
        read_recording(tmp_path / "new")


def test_a_second_daemon_is_kept_out_as_from_a_busy_port(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        recorder.closed(part(1))
        with pytest.raises(AddressError, match="another inspector") as refused:
            FlightRecorder(tmp_path, "s").lock()
        assert refused.value.exit_code == ExitCode.UNAVAILABLE
        assert str(os.getpid()) in str(refused.value)
        assert len(read_recording(recorder.path).closed) == 1
    with recording(tmp_path):
        pass


def test_a_folder_without_room_or_rights_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="runtime_dir"):
        FlightRecorder(tmp_path / "none", "s").lock()
    recorder = FlightRecorder(tmp_path, "s", 1 << 60)
    recorder.lock()
    with pytest.raises(ConfigError, match="runtime_dir"):
        recorder.start(ABOUT)
    recorder.stop()
    assert [one.name for one in tmp_path.iterdir()] == ["s.lock"]


def test_where_the_file_lies_is_known(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        state = recorder.state()
        mount = subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True).stdout.strip()
        assert state.in_memory == (mount in {"tmpfs", "ramfs"})
        assert state.locked_in_memory, "a quarter of a megabyte is allowed everywhere"
        assert recorder.path.stat().st_mode & 0o777 == 0o600


CHILD = """
import sys
import zlib
from pathlib import Path
sys.path.insert(0, {folder!r})
import test_line_recorder as test
recorder = test.FlightRecorder(Path({path!r}), "s", test.SMALL)
recorder.lock()
recorder.start(test.ABOUT)
number = 0
while True:
    number += 1
    recorder.opened(test.opened(number))
    recorder.closed(test.part(number))
    sys.stdout.write(f"{{number}}\\n")
    sys.stdout.flush()
"""


@pytest.mark.parametrize("seed", range(4))
def test_what_a_killed_process_said_is_in_its_file(tmp_path: Path, seed: int) -> None:
    code = CHILD.format(folder=str(Path(__file__).parent), path=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(random.Random(seed).randrange(1, 400)):
            said = child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        said = (child.stdout.read().rpartition("\n")[0].rpartition("\n")[2] or said).strip()
    left = read_recording(tmp_path / "s.recording")
    numbers = [one.part_no for one in left.closed]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert numbers[-1] >= int(said)
    assert left.overwritten == numbers[0] - 1
    assert left.damaged_bytes == 0


def test_the_default_size_holds_more_than_the_journal_keeps_in_memory(tmp_path: Path) -> None:
    one = part(1, Outcome.REJECT)
    record = 2 * layout.RECORD_BYTES + 16 + len(layout.encode_closed(one)) + len(layout.encode_opened(opened(1), "1", Action.STOP))
    assert room.SIZE_BYTES / record > 100_000, record


FILTERED = """
import ctypes, os, struct, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import test_line_recorder as test
recorder = test.FlightRecorder(Path({path!r}), "s", test.SMALL)
recorder.lock()
recorder.start(test.ABOUT)
opened, part = test.opened(1), test.part(1, test.Outcome.REJECT)
def work():
    for number in range(5000):
        recorder.opened(opened)
        recorder.closed(part)
        recorder.beat(number)
        recorder.committed(number)
work()
# Load the call's number; write and exit_group go on, at all others the process is killed.
program = b"".join(struct.pack("<HBBI", *one) for one in (
    (0x20, 0, 0, 0), (0x15, 2, 0, {write}), (0x15, 1, 0, {leave}), (0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7FFF0000)))
buffer = ctypes.create_string_buffer(program)
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, filter, 0, 0) == 0
work()
{wrong}
os.write(1, b"done")
os._exit(0)
"""
CALLS = {"x86_64": (1, 231), "aarch64": (64, 94)}


@pytest.mark.parametrize(("wrong", "said"), [("", b"done"), ("os.getppid()", b"")])
def test_recording_makes_no_system_call(tmp_path: Path, wrong: str, said: bytes) -> None:
    """The child's kernel kills it at any system call but write and exit (seccomp)."""
    if platform.machine() not in CALLS:
        pytest.skip("the numbers of system calls are not known here")
    write, leave = CALLS[platform.machine()]
    code = FILTERED.format(folder=str(Path(__file__).parent), path=str(tmp_path), wrong=wrong, write=write, leave=leave)
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, check=False)
    assert (done.stdout, done.returncode) == (said, -signal.SIGSYS if wrong else 0)
