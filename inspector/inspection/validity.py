"""The validity gate: an image that cannot be judged makes its part UNINSPECTED(image_invalid), never PASS."""

from __future__ import annotations

import ctypes
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from inspector.inspection.images import CHANNELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inspector.config.product import ValidityRules
    from inspector.contract.channel import FrameRecord, OpenedRecord

_KEPT_IMAGES = 8
_KEPT_BYTES = 64 * 1024 * 1024
"""So many of a camera's last images are kept, fewer where they are large: a driver that delivers an old buffer again shows one of them."""
_STEP = 7
"""Black and saturated are judged on every 7th pixel of every 7th row: odd, so that all colours of a Bayer pattern are met."""


class ValidityGate:
    """Checks the images of all cameras against one product's rules. Used by one thread.

    Keeps copies of each camera's last images: a camera that delivers the same bytes twice is frozen or stale, noise alone would differ.
    """

    def __init__(self, rules: ValidityRules) -> None:
        """Nothing was seen yet."""
        self._rules = rules
        self._last: dict[str, deque[NDArray[np.uint8]]] = {}
        # Stops at the first byte that differs, and releases the GIL.
        self._memcmp = ctypes.CDLL(None).memcmp
        self._memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

    def forms(self, record: FrameRecord, opened: OpenedRecord | None) -> str:
        """What is wrong with the image's size or format, as a sentence; empty: nothing."""
        rules = self._rules
        width = rules.width_px or (opened.width_px if opened is not None else record.width_px)
        height = rules.height_px or (opened.height_px if opened is not None else record.height_px)
        pixel_format = rules.pixel_format or (opened.pixel_format if opened is not None else record.pixel_format)
        if (record.width_px, record.height_px) != (width, height):
            return f"the image is {record.width_px}x{record.height_px} px, not {width}x{height}"
        if record.pixel_format != pixel_format:
            return f"the image is {record.pixel_format}, not {pixel_format}"
        if pixel_format not in CHANNELS:
            return f"the image is {pixel_format}, which cannot be inspected: set the camera to one of {', '.join(CHANNELS)}"
        return ""

    def check(self, camera: str, raw: NDArray[np.uint8]) -> str:
        """What is wrong with the pixels, as a sentence; empty: nothing.

        Args:
            camera: whose image it is.
            raw: uint8 [H,W] or [H,W,3] as the camera delivered it.
        """
        rules = self._rules
        age = self._age(camera, raw) if rules.frozen else 0
        samples = raw[::_STEP, ::_STEP]
        mean = float(samples.mean())
        if mean < rules.black_below:
            return f"the image is black: its mean grey level is {mean:.1f}, below {rules.black_below:g}"
        share = int(np.count_nonzero(samples >= rules.saturated_level)) / samples.size
        if share >= rules.saturated_share:
            return f"the image is saturated: {share:.0%} of it is at {rules.saturated_level} or above"
        if age == 1:
            return "the image is frozen: it is equal to the one before it, byte by byte"
        return f"the image is stale: it is equal to the one {age} images before it, byte by byte" if age else ""

    def _age(self, camera: str, raw: NDArray[np.uint8]) -> int:
        """How many images ago ``raw`` was there already, byte by byte; 0: not among those that are kept. It is kept from now on."""
        kept = self._last.setdefault(camera, deque())
        if kept and kept[0].shape != raw.shape:
            kept.clear()
        for age, image in enumerate(kept, 1):
            if self._equal(raw, image):
                return age
        most = max(1, min(_KEPT_IMAGES, _KEPT_BYTES // max(raw.nbytes, 1)))
        image = kept.pop() if len(kept) >= most else np.empty(raw.shape, np.uint8)
        np.copyto(image, raw)
        kept.appendleft(image)
        return 0

    def _equal(self, raw: NDArray[np.uint8], image: NDArray[np.uint8]) -> bool:
        if raw.flags.c_contiguous:
            return bool(self._memcmp(raw.ctypes.data, image.ctypes.data, raw.nbytes) == 0)
        # Rows with padding, which may hold anything, are compared without it.
        return np.array_equal(raw[0], image[0]) and np.array_equal(raw, image)
