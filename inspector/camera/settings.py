"""A GenICam camera's settings: the order in which they are written, what reading back must give, and all refusals in one error."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from inspector.contract.errors import CameraError

if TYPE_CHECKING:
    from inspector.camera.port import Value
    from inspector.config.station import CameraConfig

FLOAT_TOLERANCE = 0.01
"""Relative: cameras round exposure and gain to their own steps."""
CHUNKS = ("FrameID", "Timestamp", "EncoderValue", "LineStatusAll", "CounterValue")
"""Chunk data that are asked for where the camera has them (SFNC names)."""


def optional_settings(config: CameraConfig) -> list[tuple[str, Value]]:
    """What makes the named settings possible, written first, and only where the camera has the node and it is writable."""
    first: list[tuple[str, Value]] = [("AcquisitionMode", "Continuous"), ("ChunkModeActive", True)]
    if config.width_px is not None or config.height_px is not None:
        first += [("OffsetX", 0), ("OffsetY", 0)]
    if config.exposure_us is not None:
        first += [("ExposureMode", "Timed"), ("ExposureAuto", "Off")]
    if config.gain_db is not None:
        first.append(("GainAuto", "Off"))
    if config.trigger == "free_run" and config.rate_hz is not None:
        first.append(("AcquisitionFrameRateEnable", True))
    return first


def wanted_settings(config: CameraConfig) -> list[tuple[str, Value]]:
    """The named settings, then the free ones; a camera must take them all."""
    wanted: list[tuple[str, Value]] = [
        (node, value)
        for node, value in (
            ("PixelFormat", config.pixel_format),
            ("Width", config.width_px),
            ("Height", config.height_px),
            ("ExposureTime", config.exposure_us),
            ("Gain", config.gain_db),
        )
        if value is not None
    ]
    free = dict(config.settings)
    triggered = config.trigger != "free_run"
    if triggered:
        # Many cameras have several triggers; the source differs from vendor to vendor, so the free settings may name it.
        wanted += [
            ("TriggerSelector", free.pop("TriggerSelector", "FrameStart")),
            ("TriggerSource", free.pop("TriggerSource", "Line0" if config.trigger == "line" else "Software")),
        ]
    wanted.append(("TriggerMode", "On" if triggered else "Off"))
    if config.rate_hz is not None and not triggered:
        wanted.append(("AcquisitionFrameRate", config.rate_hz))
    if config.rate_hz is not None and config.trigger == "line" and config.kind == "simulator":
        wanted.append(("SimLineRate", config.rate_hz))
    return wanted + list(free.items())


def same(wanted: Value, got: Value) -> bool:
    """True: ``got``, read back, is what was ``wanted``."""
    if isinstance(wanted, bool) or isinstance(got, bool) or isinstance(wanted, str) or isinstance(got, str):
        return wanted == got
    if isinstance(got, float):
        return abs(got - wanted) <= max(abs(wanted) * FLOAT_TOLERANCE, 1e-9)
    return got == wanted


def said(error: Exception) -> str:
    """A GenICam error's own words, without the source positions that it appends."""
    return str(error).split(" : ", maxsplit=1)[0].split(os.linesep, maxsplit=1)[0].strip() or type(error).__name__


class NodeAccess:
    """A camera's nodes by name. The binding's types are handed in: one module alone imports it.

    Args:
        camera: what to call the camera in errors.
        node_map: the binding's node map.
        kinds: the binding's enumeration of interface types.
        errors: the binding's exception bases.
    """

    def __init__(self, camera: str, node_map: Any, kinds: Any, errors: tuple[type[Exception], ...]) -> None:  # noqa: ANN401 - the binding has no types
        self._camera = camera
        self._map = node_map
        self._kinds = kinds
        self._errors = errors
        # What the binding raises at a value that does not fit the node.
        self._refused: tuple[type[Exception], ...] = (*errors, TypeError, ValueError, OverflowError)

    def has(self, name: str) -> bool:
        """Whether the camera has the node."""
        return bool(self._map.has_node(name))

    def node(self, name: str) -> Any:  # noqa: ANN401
        """The binding's own object."""
        return self._map.get_node(name)

    def text(self, *names: str) -> str:
        """The first of the nodes that the camera has, as text; empty if it has none."""
        return next((str(self.node(name).value) for name in names if self.has(name)), "")

    def fresh(self, name: str) -> Value | None:
        """A node's value from the camera, not from the cache; None: it is a command."""
        node = self.node(name)
        if node.node.principal_interface_type == self._kinds.intfICommand:
            return None
        node.node.invalidate_node()
        value = node.value
        return value if isinstance(value, bool | int | float | str) else str(value)

    def read(self, name: str) -> Value | None:
        """As ``fresh``; a node that cannot be read gives a text that says so."""
        try:
            return self.fresh(name)
        except self._errors as error:
            return f"(unreadable: {said(error)})"

    def set(self, name: str, value: Value | None) -> None:
        """Write a node and read it back, or execute a command.

        Raises:
            CameraError: no such node, or the value is refused or not taken over.
        """
        problem = self._problem(name, value) or ("" if value is None else self._kept(name, value))
        if problem:
            raise CameraError(f"{self._camera}: {problem}")

    def configure(self, config: CameraConfig) -> dict[str, str]:
        """Write every setting, then read every one back: a later setting may have changed an earlier one.

        Raises:
            CameraError: every setting that was refused, or reads back as something else.
        """
        for name, value in optional_settings(config):
            self._offer(name, value)
        for chunk in CHUNKS if self.has("ChunkSelector") else ():
            if self._offer("ChunkSelector", chunk):
                self._offer("ChunkEnable", value=True)
        wanted = wanted_settings(config)
        problems = [problem for name, value in wanted if (problem := self._problem(name, value))]
        refused = {problem.partition(":")[0] for problem in problems}
        settings = {}
        for name, value in wanted:
            if name in refused:
                settings[name] = "None"
                continue
            problems += [problem] if (problem := self._kept(name, value)) else []
            settings[name] = str(self.read(name))
        if problems:
            raise CameraError(f"{self._camera} does not take its settings: {'; '.join(problems)}")
        return settings

    def _offer(self, name: str, value: Value) -> bool:
        """Write where possible: a camera may lack the node, or this choice of it."""
        if self.has(name):
            with contextlib.suppress(*self._refused):
                self._assign(name, value)
                return True
        return False

    def _problem(self, name: str, value: Value | None) -> str:
        if not self.has(name):
            return f"{name}: the camera has no such node"
        try:
            self._assign(name, value)
        except self._refused as error:
            return f"{name}: {value!r} is refused: {said(error)}"
        return ""

    def _kept(self, name: str, value: Value) -> str:
        got = self.read(name)
        return f"{name}: {value!r} was written, {got!r} is read back" if got is not None and not same(value, got) else ""

    def _assign(self, name: str, value: Value | None) -> None:
        node = self.node(name)
        kind = node.node.principal_interface_type
        if kind == self._kinds.intfICommand:
            node.execute()
        elif kind == self._kinds.intfIFloat and isinstance(value, int):
            node.value = float(value)
        elif kind == self._kinds.intfIBoolean and not isinstance(value, bool):
            raise TypeError("true or false is needed")
        else:
            node.value = value
