"""The exit codes and the errors that carry them."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class ExitCode(IntEnum):
    """What the process tells its caller. Values follow sysexits.h where it has one."""

    OK = 0
    FAILURE = 1
    """An error that has no code of its own: a defect of the program."""
    USAGE = 2
    DATA = 65
    """Images, labels or checkpoints that cannot be used."""
    UNAVAILABLE = 69
    """An address or port cannot be bound."""
    ENGINE = 70
    """An engine is wrong, damaged, does not fit its manifest, or failed for good while running."""
    JOURNAL = 73
    """The journal cannot be created or written at start."""
    CONFIG = 78
    """A station file, product recipe or engine recipe is wrong."""
    INTERRUPTED = 130


class InspectorError(Exception):
    """An expected failure: one clear sentence that names the thing and the mend."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILURE


class ConfigError(InspectorError):
    """Wrong configuration. ``problems`` has one line per problem, each naming file and key."""

    exit_code: ClassVar[ExitCode] = ExitCode.CONFIG

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(InspectorError):
    """Images, labels or weights that cannot be used."""

    exit_code: ClassVar[ExitCode] = ExitCode.DATA


class EngineError(InspectorError):
    """An engine that cannot be loaded, does not fit, or failed."""

    exit_code: ClassVar[ExitCode] = ExitCode.ENGINE


class CameraError(InspectorError):
    """A camera that is absent, lost, or does not take its settings. The daemon lives on: it retries."""


class JournalError(InspectorError):
    """The journal cannot be opened or written."""

    exit_code: ClassVar[ExitCode] = ExitCode.JOURNAL


class AddressError(InspectorError):
    """An endpoint that cannot be bound."""

    exit_code: ClassVar[ExitCode] = ExitCode.UNAVAILABLE
