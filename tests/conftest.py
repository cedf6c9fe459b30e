"""What every test is held to: no leaked threads, processes, file descriptors, sockets or shared memory; fixed seeds."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest
from rich.live import _RefreshThread

SHARED = Path(__file__).resolve().parents[2] / "shared"

hypothesis.settings.register_profile(
    "house",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("data") and not (SHARED / "data").is_dir():
            item.add_marker(pytest.mark.skip(reason="the real images are not beside the checkout"))
        if item.get_closest_marker("needs_root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))


def _descriptors() -> dict[int, str]:
    """Open file descriptors and what they are; libraries' own permanent ones (devices, libraries' sockets to nowhere) are not told apart."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except OSError:
            continue  # the listing's own descriptor
    return found


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def _shared_memory() -> set[str]:
    folder = Path("/dev/shm")
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


_NOT_A_LEAK = ("/dev/", "/proc/", ".so", "anon_inode:[eventpoll]")


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """A test leaves no thread, process, descriptor or shared memory behind."""
    threads, children, shared = set(threading.enumerate()), _children(), _shared_memory()
    before = _descriptors()
    yield
    for thread in threading.enumerate():
        if isinstance(thread, _RefreshThread) and thread.done.is_set():
            thread.join(2.0)  # rich tells a progress bar's thread to end and does not wait for it
    left = [thread for thread in threading.enumerate() if thread not in threads and thread.is_alive() and not _is_library_thread(thread)]
    assert not left, f"threads left running: {left}"
    leaked = _leaked_descriptors(before)
    if leaked:
        gc.collect()
        leaked = _leaked_descriptors(before)
    assert not leaked, f"file descriptors left open: {leaked}"
    assert not (_children() - children), f"processes left: {[psutil.Process(pid) for pid in _children() - children if psutil.pid_exists(pid)]}"
    assert not {name for name in _shared_memory() - shared if "inspector" in name}, "shared memory left behind"


def _leaked_descriptors(before: dict[int, str]) -> dict[int, str]:
    return {fd: target for fd, target in _descriptors().items() if before.get(fd) != target and not any(part in target for part in _NOT_A_LEAK)}


def _is_library_thread(thread: threading.Thread) -> bool:
    # tqdm and torch start permanent helper threads at first use; they belong to the process, not to the test.
    return thread.name.startswith(("tqdm", "pymp", "Thread-tqdm"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images (tests that use it are marked ``data``)."""
    return SHARED / "data"
