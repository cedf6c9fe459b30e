"""What the kernel says of a file's memory: whether it lies on a disk, and that its pages stay."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap
    from pathlib import Path

_TMPFS, _RAMFS = 0x01021994, 0x858458F6
_STATFS_WORDS = 32
"""More than struct statfs has on any platform."""


def lies_in_memory(path: Path) -> bool:
    """Whether the file system of ``path`` is tmpfs or ramfs; False too where the kernel does not say."""
    said = (ctypes.c_long * _STATFS_WORDS)()
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), said) != 0:
        return False
    return (said[0] & 0xFFFFFFFF) in {_TMPFS, _RAMFS}


def lock_in_memory(data: mmap.mmap) -> bool:
    """Keep the pages of ``data`` from being swapped out (mlock), until it is unmapped. False: the kernel refuses (RLIMIT_MEMLOCK)."""
    first = ctypes.c_char.from_buffer(data)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return bool(libc.mlock(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(data))) == 0)
    finally:
        del first  # else the mapping could not be closed
