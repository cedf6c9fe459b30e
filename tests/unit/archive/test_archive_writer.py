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
import numpy as np
import pytest

from inspector.archive.heat_file import read_heat
from inspector.archive.retention import UNFINISHED, Retention
from inspector.archive.writer import Archive
from inspector.config.station import ArchiveConfig
from inspector.contract.pictures import heat_name, picture_name
from inspector.contract.records import Box, Event, EventLevel, HeatMap, LateResult, Outcome, Reason

GREY = np.full((120, 320), 90, dtype=np.uint8)
HEAT = (HeatMap("dent", 0.75, "bilinear", np.eye(4, dtype=np.float32), Box(0, 0, 320, 320)),)


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


def test_heat_maps_are_kept_beside_the_picture_under_its_name(station: Made, made: SimpleNamespace) -> None:
    archive = station.archive()
    picture = archive.take("top", GREY, HEAT)
    assert picture is not None
    assert picture.heat is HEAT
    part = made.make_part(5, Outcome.REJECT, pictures=(picture,))
    assert archive.offer(part)
    assert archive.stop(5.0)
    name = picture_name("boot-1", part, "top", part.closed_utc_ns)
    assert station.pictures() == sorted([name, heat_name(name)])
    (read,) = read_heat(station.path / heat_name(name))
    assert (read.name, read.score, read.source, read.box_px) == ("dent", 0.75, "bilinear", Box(0, 0, 320, 320))
    np.testing.assert_allclose(read.values, np.eye(4))
    drawn = cv2.imread(str(station.path / name))
    assert drawn is not None
    assert drawn.shape[0] > 240, "wide: the heat lies below"
    assert archive.state().written == 1, "one picture, whatever lies beside it"


def test_the_oldest_picture_takes_its_heat_maps_along_and_they_do_not_count(station: Made, made: SimpleNamespace) -> None:
    archive = station.archive(max_pictures=2, pool=16)
    for number in range(1, 6):
        picture = archive.take("top", GREY, HEAT if number != 4 else ())
        assert picture is not None
        archive.offer(made.make_part(number, Outcome.REJECT, pictures=(picture,), closed_utc_ns=number * 86_400 * 10**9))
    assert archive.stop(5.0)
    assert [(name[:10], name.split(".", 1)[1]) for name in station.pictures()] == [
        ("1970-01-05", "jpg"),
        ("1970-01-06", "heat.png"),
        ("1970-01-06", "jpg"),
    ]
    assert len(list(station.path.iterdir())) == 2, "empty days are removed"


def test_a_start_removes_heat_maps_without_their_picture(station: Made, made: SimpleNamespace) -> None:
    day = station.path / "1970-01-01"
    day.mkdir(parents=True)
    for name in ("a.jpg", "a.heat.png", "b.heat.png", "c.heat.png.part", "note.png"):
        (day / name).write_bytes(b"x")
    archive = station.archive()
    assert archive.stop(5.0)
    assert station.pictures() == [f"1970-01-01/{name}" for name in ("a.heat.png", "a.jpg", "note.png")]


def _reject(archive: Archive, made: SimpleNamespace, number: int, in_the_way: Callable[[str], Path | None] = lambda _: None) -> None:
    """One part with heat maps; a folder may stand in the way of one of its files."""
    picture = archive.take("top", GREY, HEAT)
    assert picture is not None
    part = made.make_part(number, Outcome.REJECT, pictures=(picture,))
    obstacle = in_the_way(picture_name("boot-1", part, "top", part.closed_utc_ns))
    if obstacle is not None:
        obstacle.mkdir(parents=True)
    archive.offer(part)


@pytest.mark.parametrize("blocked", [heat_name, str, lambda name: name + UNFINISHED, lambda name: heat_name(name) + UNFINISHED])
def test_a_picture_or_heat_maps_that_cannot_be_written_are_lost_together_and_told(
    station: Made, made: SimpleNamespace, blocked: Callable[[str], str]
) -> None:
    archive = station.archive()
    _reject(archive, made, 1)
    until(lambda: archive.state().written == 1)
    before = station.pictures()
    _reject(archive, made, 2, lambda name: station.path / blocked(name))
    until(lambda: archive.state().failed == 1)
    assert not archive.state().writable
    assert station.pictures() == before
    _reject(archive, made, 3)
    until(lambda: archive.state().written == 2)
    assert [event.name for event in station.events] == ["archive_unwritable", "archive_recovered"]
    assert archive.stop(5.0)
    assert balanced(archive)
    assert len(station.pictures()) == 4


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


def test_retention_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    retention = Retention(tmp_path / "absent", 3)
    retention.scan()
    retention.make_room()
    assert len(retention) == 0
