"""The validity gate: an image that cannot be inspected is never inspected, and never passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from inspector.engine.preprocess import from_pixel_format

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inspector.config.product import ValidityRules

_CHANNELS = {"Mono8": 1, "BayerRG8": 1, "RGB8": 3}
_SAMPLES_PER_SIDE = 160
"""Black and saturated are judged on about so many rows and columns."""
_GLANCE = 4093
"""A prime: every so many bytes are compared before all of them are."""


class ImageFormat(msgspec.Struct, frozen=True):
    """Size and pixel format of an image."""

    width_px: int
    height_px: int
    pixel_format: str
    """PFNC name."""

    def __str__(self) -> str:
        """As the operator reads it."""
        return f"{self.width_px}x{self.height_px} {self.pixel_format}"


class ValidityGate:
    """Judges one camera's images, in their order. Used by one thread."""

    def __init__(self, rules: ValidityRules) -> None:
        self._rules = rules
        self._last = np.empty(0, np.uint8)
        self._has_last = False

    def admit(
        self, pixels: NDArray[np.uint8], given: ImageFormat, stride_bytes: int, opened: ImageFormat | None
    ) -> tuple[NDArray[np.uint8] | None, str]:
        """The image to inspect, or None and a sentence that says what is wrong with it.

        Args:
            pixels: uint8 [n], the frame as the camera delivered it; Mono8 and RGB8 images are views of it.
            given: what the frame says of itself.
            stride_bytes: bytes from row to row.
            opened: what the camera was opened with; None: unknown.

        Returns:
            uint8 [H, W], or [H, W, 3] RGB for BayerRG8 and RGB8.
        """
        wrong = self._misfit(pixels, given, stride_bytes, opened)
        if wrong:
            return None, wrong
        channels = _CHANNELS[given.pixel_format]
        rows = pixels[: given.height_px * stride_bytes].reshape(given.height_px, stride_bytes)[:, : given.width_px * channels]
        raw = rows if channels == 1 else rows.reshape(given.height_px, given.width_px, channels)
        wrong = self._exposure(raw)
        if self._rules.frozen and self._is_last(rows):
            wrong = wrong or "the image is frozen: it equals the one before it, byte by byte"
        return (None, wrong) if wrong else (from_pixel_format(raw, given.pixel_format), "")  # type: ignore[arg-type]  # checked above

    def _misfit(self, pixels: NDArray[np.uint8], given: ImageFormat, stride_bytes: int, opened: ImageFormat | None) -> str:
        rules = self._rules
        wanted = ImageFormat(
            rules.width_px or (opened.width_px if opened else given.width_px),
            rules.height_px or (opened.height_px if opened else given.height_px),
            rules.pixel_format or (opened.pixel_format if opened else given.pixel_format),
        )
        if given != wanted:
            return f"the image is {given}, and {wanted} is wanted"
        channels = _CHANNELS.get(given.pixel_format)
        if channels is None:
            return f"the pixel format {given.pixel_format} is not one of {', '.join(_CHANNELS)}"
        if stride_bytes < given.width_px * channels or pixels.size < given.height_px * stride_bytes:
            return f"the image is {given} with rows of {stride_bytes} bytes, and only {pixels.size} bytes came"
        return ""

    def _exposure(self, raw: NDArray[np.uint8]) -> str:
        rules = self._rules
        step_y, step_x = (max(1, size // _SAMPLES_PER_SIDE) for size in raw.shape[:2])
        sample = raw[::step_y, ::step_x]
        mean = float(sample.mean())
        if mean < rules.black_below:
            return f"the image is black: mean grey level {mean:.1f}, under {rules.black_below:g}"
        if rules.saturated_share < 1:
            share = float(np.count_nonzero(sample >= rules.saturated_level)) / sample.size
            if share >= rules.saturated_share:
                return f"the image is saturated: {share:.0%} of it is at level {rules.saturated_level} or above"
        return ""

    def _is_last(self, rows: NDArray[np.uint8]) -> bool:
        """Whether the image equals the last one; it is the last one from now on."""
        flat = rows.reshape(-1)  # a copy only where rows are padded
        same = (
            self._has_last
            and self._last.size == flat.size
            and bool(np.array_equal(self._last[::_GLANCE], flat[::_GLANCE]))
            and bool(np.array_equal(self._last, flat))
        )
        if not same:
            if self._last.size != flat.size:
                self._last = np.empty(flat.size, np.uint8)
            np.copyto(self._last, flat)
            self._has_last = True
        return same
