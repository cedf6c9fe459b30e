"""Before the line starts: what an earlier start has left in the flight recorder goes to the journal, and the recorder begins anew."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from inspector.contract.errors import ConfigError
from inspector.contract.records import Blind, ClosedPart, Event, EventLevel, Outcome, Reason, StageTimes
from inspector.journal.fold import Boot, Folded, fold
from inspector.line.record_file import About, OpenRecord, Recording, UnreadableRecordingError, read_recording
from inspector.line.recorder import SIZE_BYTES, FlightRecorder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inspector.config.station import Station, StationFiles
    from inspector.line.streams import Streams

_ON_THE_WAY_NS = 1_000_000_000
"""A frame that was on its way to the daemon when it died is younger than this."""
_MACHINE_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the start has found."""

    boot_id: str | None = None
    """The earlier start of the daemon; None: there was none, or its recording cannot be read."""
    folded: int = 0
    """Closed parts that the journal lacked."""
    crashed: Mapping[str, int] = field(default_factory=dict)
    """Parts that were open, by stream: UNINSPECTED(crashed)."""
    last_alive_ns: int | None = None
    """Monotonic; None: the machine was booted since, or nothing is known."""
    seen_ns: Mapping[str, int] = field(default_factory=dict)
    """Newest exposure that the earlier start knew of each stream."""
    events: tuple[Event, ...] = ()

    def told(self, streams: Streams) -> list[Event | Blind]:
        """What to publish: the events, and for every camera the interval since the last sign of life, up to now.

        Call it when the cameras' supervisors have said that they are blind, so that nothing lies between the two.
        """
        items: list[Event | Blind] = list(self.events)
        if self.last_alive_ns is not None:
            now_ns, cause = time.monotonic_ns(), f"the station was started anew (before it: boot {self.boot_id})"
            for name in streams.names:
                # What was exposed before the last sign of life and had not arrived is in the interval, what has a verdict is not.
                from_ns = max(self.seen_ns.get(name, 0) + 1, self.last_alive_ns - _ON_THE_WAY_NS)
                if from_ns < now_ns:
                    items += [Blind(camera, from_ns, now_ns, cause) for camera in streams.cameras(name)]
        return items


def make_folder(path: Path, key: str, mode: int = 0o777) -> None:
    """Make the folder that ``key`` of the station file names, where it is not there.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        if not path.is_dir():
            path.mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([f"{key}: {path} cannot be made: {error.strerror}; name a folder that the service may write"]) from None


def runtime_folder(station: Station, environment: Mapping[str, str]) -> Path:
    """The runtime directory: the station file's, else the service manager's, else ``run`` in the state directory."""
    given = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return station.runtime_dir or (Path(given) if given else station.state_dir / "run")


def start_recorder(files: StationFiles, boot_id: str, program: str, engines: tuple[str, ...]) -> tuple[FlightRecorder, Recovered]:
    """The running recorder of this start, in the runtime directory, and what was found there.

    Raises:
        InspectorError: as ``open_recorder``.
    """
    station, product = files.station, files.product
    folder = runtime_folder(station, os.environ)
    make_folder(folder, "runtime_dir", 0o700)
    about = About(
        station=station.name,
        boot_id=boot_id,
        program=program,
        started_utc_ns=time.time_ns(),
        product=product.name,
        product_version=product.version,
        engines=engines,
        uninspected=product.uninspected,
    )
    return open_recorder(folder, station.journal.path, about)


def open_recorder(folder: Path, journal: Path, about: About, size_bytes: int = SIZE_BYTES) -> tuple[FlightRecorder, Recovered]:
    """The running recorder of this start, once the journal has what the earlier one left. The journal must not be open yet.

    Args:
        folder: the runtime directory.
        journal: the journal's file.
        about: this start; the machine's boot and what was seen before are filled in.
        size_bytes: of the recorder's file.

    Raises:
        AddressError: another daemon records there.
        ConfigError: the folder cannot be written or has no room.
        JournalError: the journal cannot be written; the recording stays as it is.
    """
    recorder = FlightRecorder(folder, about.station, size_bytes)
    recorder.lock()
    try:
        machine_boot = _MACHINE_BOOT.read_text().strip()
        recovered = _recover(recorder.path, journal, machine_boot)
        about = msgspec.structs.replace(about, machine_boot=machine_boot, seen_ns=dict(recovered.seen_ns))
        recorder.start(about, recovered.last_alive_ns or 0)
    except BaseException:
        recorder.stop()
        raise
    return recorder, _with_place(recovered, recorder)


def _recover(path: Path, journal: Path, machine_boot: str) -> Recovered:
    if not path.exists():
        return Recovered()
    try:
        left = read_recording(path)
    except UnreadableRecordingError as error:
        return Recovered(events=(_kept_aside(path, f"{error}; parts of an earlier start may be in it"),))
    about = left.about
    same_machine_boot = about.machine_boot == machine_boot
    alive_ns = left.alive_ns if same_machine_boot and left.alive_ns else None
    seen_ns = left.seen_ns if same_machine_boot else {}
    if left.clean:
        return Recovered(about.boot_id, last_alive_ns=alive_ns, seen_ns=seen_ns)
    crashed = [_crashed(part, left) for part in left.open]
    folded = Folded((), 0, ())
    if left.closed or crashed:
        folded = fold(journal, Boot(about.boot_id, about.station, about.program, about.started_utc_ns), [*left.closed, *crashed])
    by_stream: dict[str, int] = {}
    for part in crashed:
        by_stream[part.stream] = by_stream.get(part.stream, 0) + 1
    events = [_ended(about.boot_id, len(left.closed), len(crashed))]
    if left.overwritten:
        detail = f"{left.overwritten} parts of boot {about.boot_id} were overwritten in the flight recorder before they were in the journal"
        events.append(_event("recorder_overwritten", EventLevel.ERROR, detail))
    if left.damaged_bytes or folded.refused:
        problem = f"{left.damaged_bytes} bytes cannot be read, {len(folded.refused)} parts are not taken by the journal"
        events.append(_kept_aside(path, f"{path}: the flight recorder's file is damaged: {problem}"))
    written = {(part.stream, part.part_no) for part in folded.written}
    number = sum((part.stream, part.part_no) in written for part in left.closed)
    return Recovered(about.boot_id, number, by_stream, alive_ns, seen_ns, tuple(events))


def _crashed(part: OpenRecord, left: Recording) -> ClosedPart:
    """How a part ends that was open. It was never numbered on the wire: ``seq`` is 0. It ended when the daemon was last known to live."""
    about = left.about
    closed_ns = max(left.alive_ns, part.opened_ns)
    return ClosedPart(
        stream=part.stream,
        part_no=part.part_no,
        seq=0,
        part_id=part.part_id,
        outcome=Outcome.UNINSPECTED,
        reason=Reason.CRASHED,
        detail="the station ended before the part was closed",
        action=part.uninspected,
        defects=(),
        views=(),
        times=StageTimes(),
        exposure_ns=part.exposure_ns,
        opened_ns=part.opened_ns,
        deadline_ns=part.deadline_ns,
        closed_ns=closed_ns,
        product=about.product,
        product_version=part.product_version,
        engines=about.engines,
        closed_utc_ns=closed_ns + left.utc_offset_ns,
    )


def _with_place(recovered: Recovered, recorder: FlightRecorder) -> Recovered:
    """``recovered`` with what is to be said of the place of the new file."""
    state, events = recorder.state(), list(recovered.events)
    if not state.in_memory:
        detail = f"{recorder.path.parent} is on a disk: recording a verdict may wait for it; name a folder in memory (tmpfs) as runtime_dir"
        events.append(_event("recorder_on_disk", EventLevel.WARNING, detail))
    if not state.locked_in_memory:
        detail = f"the kernel does not keep {recorder.path} in memory: raise the service's LimitMEMLOCK above {state.size_bytes} bytes"
        events.append(_event("recorder_not_locked", EventLevel.WARNING, detail))
    return Recovered(recovered.boot_id, recovered.folded, recovered.crashed, recovered.last_alive_ns, recovered.seen_ns, tuple(events))


def _ended(boot_id: str, folded: int, crashed: int) -> Event:
    detail = f"boot {boot_id} ended without a stop: {folded} closed parts were taken from the flight recorder, {crashed} were open and are crashed"
    return _event("recovered", EventLevel.WARNING, detail)


def _kept_aside(path: Path, problem: str) -> Event:
    aside = path.with_name(f"{path.name}.aside-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    path.rename(aside)
    return _event("recorder_aside", EventLevel.ERROR, f"{problem}; it is kept as {aside.name}")


def _event(name: str, level: EventLevel, detail: str) -> Event:
    return Event(name=name, level=level, detail=detail, at_ns=time.monotonic_ns())
