"""The archive: real pictures on a real disk, a bounded pool, and no waiting for either."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from inspector.archive.draw import annotate
from inspector.archive.retention import Retention
from inspector.archive.writer import Archive
from inspector.config.station import ArchiveConfig
from inspector.contract.pictures import picture_name
from inspector.contract.records import Event, EventLevel, LateResult, Outcome, Reason

GREY = np.full((120, 320), 90, dtype=np.uint8)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


class Made:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self._archives: list[Archive] = []

    def archive(self, *, start: bool = True, **settings: Any) -> Archive:
        archive = Archive(ArchiveConfig(path=self.path, **settings), boot_id="boot-1", on_event=self.events.append)
        self._archives.append(archive)
        if start:
            archive.start()
        return archive

    def pictures(self) -> list[str]:
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file())

    def close(self) -> None:
        for archive in self._archives:
            archive.stop(5.0)


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Made]:
    built = Made(tmp_path / "pictures")
    yield built
    built.close()


def balanced(archive: Archive) -> bool:
    state = archive.state()
    return state.taken == state.written + state.given_back + state.failed + state.held


def test_a_rejected_part_becomes_a_picture_with_the_journals_name(station: Made, made: SimpleNamespace) -> None:
    archive = station.archive()
    picture = archive.take("top", GREY)
    assert picture is not None
    part = made.make_part(5, Outcome.REJECT, pictures=(picture,))
    assert archive.offer(part)
    assert archive.stop(5.0)
    name = picture_name("boot-1", part, "top", part.closed_utc_ns)
    assert station.pictures() == [name]
    read = cv2.imread(str(station.path / name))
    assert read is not None
    assert read.shape[1] == 320
    assert read.shape[0] > 120
    red = (read[..., 2] > 170) & (read[..., 0] < 110) & (read[..., 1] < 110)
    assert red.sum() > 50, "the box is drawn"
    assert (archive.state().written, archive.state().held) == (1, 0)
    assert balanced(archive)


def test_the_copy_is_the_archives_own(station: Made) -> None:
    archive = station.archive()
    pixels = GREY.copy()
    picture = archive.take("top", pixels)
    assert picture is not None
    pixels[:] = 0
    assert (picture.pixels == 90).all()
    archive.give_back(picture)


def test_other_outcomes_give_their_picture_back(station: Made, made: SimpleNamespace) -> None:
    archive = station.archive(pool=1)
    for number, outcome in enumerate((Outcome.PASS, Outcome.UNINSPECTED, Outcome.PASS), 1):
        picture = archive.take("top", GREY)
        assert picture is not None
        assert archive.offer(made.make_part(number, outcome, reason=Reason.LATE, pictures=(picture,)))
    late = archive.take("top", GREY)
    assert late is not None
    assert archive.offer(LateResult("top", 1, made.make_proposal(picture=late), 0))
    assert archive.offer(Event("x", EventLevel.INFO, "", 0))
    assert (archive.state().given_back, archive.state().held) == (4, 0)
    assert archive.stop(5.0)
    assert station.pictures() == []


def test_a_full_pool_refuses_at_once_and_counts(station: Made) -> None:
    archive = station.archive(pool=2)
    held = [archive.take("top", GREY) for _ in range(3)]
    assert [picture is None for picture in held] == [False, False, True]
    assert archive.state().refused == 1
    for picture in held:
        if picture is not None:
            archive.give_back(picture)
    assert archive.state().held == 0


def test_buffers_grow_once_and_are_used_again(station: Made) -> None:
    archive = station.archive(pool=1)
    first = archive.take("top", np.zeros((200, 300, 3), dtype=np.uint8))
    assert first is not None
    archive.give_back(first)
    second = archive.take("top", GREY)
    assert second is not None
    assert np.shares_memory(first.pixels, second.pixels)
    archive.give_back(second)


def test_a_picture_is_given_back_once(station: Made, made: SimpleNamespace) -> None:
    archive = station.archive(pool=1)
    old = archive.take("top", GREY)
    assert old is not None
    archive.give_back(old)
    archive.give_back(old)
    new = archive.take("top", GREY)
    assert new is not None
    archive.give_back(old)  # the same buffer, but no longer his
    archive.offer(made.make_part(1, Outcome.REJECT, pictures=(old,)))
    assert archive.state().held == 1
    archive.give_back(new)
    assert archive.stop(5.0)
    assert station.pictures() == []
    assert balanced(archive)


def test_the_views_of_a_group_each_have_their_own_picture_and_defects(station: Made, made: SimpleNamespace) -> None:
    archive = station.archive()
    pictures = tuple(picture for camera in ("left", "right") if (picture := archive.take(camera, GREY)) is not None)
    part = made.make_part(1, Outcome.REJECT, pictures=pictures, defects=(made.make_defect(camera="left"),), stream="group")
    assert archive.offer(part)
    assert archive.stop(5.0)
    left, right = (cv2.imread(str(station.path / name)) for name in station.pictures())
    assert left is not None
    assert right is not None
    assert ((left[..., 2] > 170) & (left[..., 0] < 110)).sum() > 50
    assert ((right[..., 2] > 170) & (right[..., 0] < 110)).sum() == 0


def test_the_oldest_make_room(station: Made, made: SimpleNamespace) -> None:
    archive = station.archive(max_pictures=3)
    day_ns = 86_400 * 10**9
    for number in range(1, 6):
        picture = None
        while picture is None:
            picture = archive.take("top", GREY)
        archive.offer(made.make_part(number, Outcome.REJECT, pictures=(picture,), closed_utc_ns=number * day_ns))
    assert archive.stop(5.0)
    assert [name[:10] for name in station.pictures()] == ["1970-01-04", "1970-01-05", "1970-01-06"]
    assert sorted(path.name for path in station.path.iterdir()) == ["1970-01-04", "1970-01-05", "1970-01-06"], "empty days are removed"


def test_pictures_of_earlier_starts_count_and_half_written_ones_go(station: Made, made: SimpleNamespace) -> None:
    day = station.path / "1970-01-01"
    day.mkdir(parents=True)
    (day / "old.jpg").write_bytes(b"x")
    (day / "half.jpg.part").write_bytes(b"x")
    (day / "note.txt").write_text("an operator's own file stays")
    archive = station.archive(max_pictures=1)
    picture = archive.take("top", GREY)
    assert picture is not None
    archive.offer(made.make_part(1, Outcome.REJECT, pictures=(picture,)))
    assert archive.stop(5.0)
    names = station.pictures()
    assert len(names) == 2
    assert names[0] == "1970-01-01/note.txt"


def test_a_disk_that_refuses_is_told_once_counts_and_recovers(station: Made, made: SimpleNamespace) -> None:
    station.path.write_text("a file in the place of the folder")
    archive = station.archive()

    def reject(number: int) -> None:
        picture = archive.take("top", GREY)
        assert picture is not None
        assert archive.offer(made.make_part(number, Outcome.REJECT, pictures=(picture,)))

    for number in (1, 2, 3):
        reject(number)
    until(lambda: archive.state().failed == 3)
    assert not archive.state().writable
    assert archive.state().held == 0
    station.path.unlink()
    reject(4)
    until(lambda: archive.state().written == 1)
    assert archive.state().writable
    assert [event.name for event in station.events] == ["archive_unwritable", "archive_recovered"]
    assert archive.stop(5.0)
    assert balanced(archive)


@pytest.mark.needs_root
def test_a_full_disk_leaves_no_half_picture(tmp_path: Path, made: SimpleNamespace) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=False, capture_output=True).returncode:
        pytest.skip("no right to mount here")
    station = Made(folder / "pictures")
    try:
        archive = station.archive()
        noise = np.random.default_rng(1).integers(0, 255, (400, 400), dtype=np.uint8)
        picture = archive.take("top", noise)
        assert picture is not None
        archive.offer(made.make_part(1, Outcome.REJECT, pictures=(picture,)))
        until(lambda: archive.state().failed == 1)
        assert "space" in archive.state().last_error
        assert station.pictures() == []
    finally:
        station.close()
        subprocess.run(["umount", folder], check=True)


def test_offers_after_the_stop_are_refused_and_counted(station: Made, made: SimpleNamespace) -> None:
    archive = station.archive()
    picture = archive.take("top", GREY)
    assert picture is not None
    assert archive.stop(5.0)
    assert not archive.offer(made.make_part(1, Outcome.REJECT, pictures=(picture,)))
    assert archive.take("top", GREY) is None
    assert (archive.state().failed, archive.state().refused, archive.state().held) == (1, 1, 0)


def test_an_archive_that_is_off_takes_nothing(station: Made, made: SimpleNamespace) -> None:
    archive = station.archive(enabled=False)
    assert archive.take("top", GREY) is None
    assert archive.offer(made.make_part(1, Outcome.REJECT))
    assert archive.stop(5.0)
    assert not station.path.exists()


def test_many_threads_take_and_nothing_is_lost(station: Made, made: SimpleNamespace) -> None:
    archive = station.archive(pool=4)

    def work(first: int) -> None:
        for number in range(first, first + 50):
            picture = archive.take("top", GREY)
            if picture is not None:
                archive.offer(made.make_part(number, Outcome.REJECT if number % 2 else Outcome.PASS, pictures=(picture,)))

    threads = [threading.Thread(target=work, args=(1000 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert archive.stop(10.0)
    state = archive.state()
    assert state.taken + state.refused == 200
    assert (state.held, state.failed) == (0, 0)
    assert balanced(archive)
    assert len(station.pictures()) == state.written


@pytest.mark.parametrize("shape", [(60, 80), (60, 80, 3), (1000, 1600)])
def test_annotating_leaves_the_surface_uncovered_and_the_input_alone(made: SimpleNamespace, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    before = pixels.copy()
    drawn = annotate(pixels, ["REJECT  part 1", "zweite Zeile: ä"], [])
    assert (pixels == before).all()
    surface = drawn[-shape[0] :]
    expected = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if len(shape) == 2 else cv2.COLOR_RGB2BGR)
    assert (surface == expected).all()


def test_boxes_outside_the_image_and_odd_names_are_drawn_without_complaint(made: SimpleNamespace) -> None:
    defect = msgspec.structs.replace(made.make_defect("Kratzer ä\n"), box_px=msgspec.structs.replace(made.make_defect().box_px, x1=-1e12, y2=1e12))
    assert annotate(GREY, ["x"], [defect, made.make_defect(counted=False)]).shape[1] == 320


def test_retention_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    retention = Retention(tmp_path / "absent", 3)
    retention.scan()
    retention.make_room()
    assert len(retention) == 0
