"""The one way of a picture to the network's input, shared by training, evaluation and the station."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, assert_never

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILL_GREY = 114
"""Grey level right of and below the picture."""

PixelFormat = Literal["Mono8", "RGB8", "BayerRG8"]
"""Names of the GenICam pixel format naming convention."""


@dataclass(frozen=True, slots=True)
class LetterboxGeometry:
    """How a picture lies on the canvas: from the top left corner, scaled, the rest grey."""

    scale_x: float
    """Canvas pixels per picture pixel along x."""
    scale_y: float
    """The same along y; it differs from ``scale_x`` by rounding to whole pixels only."""
    width_px: int
    """Columns of the canvas that the picture covers."""
    height_px: int
    """Rows of the canvas that the picture covers."""


def letterbox_geometry(image_height_px: int, image_width_px: int, height_px: int, width_px: int) -> LetterboxGeometry:
    """Where a picture lies on a canvas of ``height_px`` x ``width_px``: as large as fits with its aspect kept.

    Raises:
        ValueError: a size is not positive.
    """
    if min(image_height_px, image_width_px, height_px, width_px) <= 0:
        raise ValueError(f"a picture of {image_width_px} x {image_height_px} px for a canvas of {width_px} x {height_px} px: sizes must be positive")
    scale = min(height_px / image_height_px, width_px / image_width_px)
    covered_height = min(height_px, max(1, round(image_height_px * scale)))
    covered_width = min(width_px, max(1, round(image_width_px * scale)))
    return LetterboxGeometry(covered_width / image_width_px, covered_height / image_height_px, covered_width, covered_height)


def letterbox(image: NDArray[np.uint8], height_px: int, width_px: int, channels: int) -> tuple[NDArray[np.uint8], LetterboxGeometry]:
    """A picture as the network's input: aspect kept, filled with grey to the right and bottom.

    Shrinking averages areas, enlarging interpolates linearly. OpenCV releases the interpreter's lock meanwhile.

    Args:
        image: uint8 [H, W] grey or [H, W, 3] RGB.
        height_px: rows of the canvas.
        width_px: columns of the canvas.
        channels: 1 or 3; grey becomes three equal planes, RGB becomes luma where they differ from the picture's.

    Returns:
        The canvas, uint8 [channels, height_px, width_px], contiguous; and where the picture lies on it.

    Raises:
        ValueError: the picture's dtype or shape is none of these, or ``channels`` is neither 1 nor 3.
    """
    picture = with_channels(image, channels)
    geometry = letterbox_geometry(picture.shape[0], picture.shape[1], height_px, width_px)
    if (geometry.height_px, geometry.width_px) != picture.shape[:2]:
        shrinks = geometry.scale_x < 1
        picture = _uint8(cv2.resize(picture, (geometry.width_px, geometry.height_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
    canvas = np.full((channels, height_px, width_px), FILL_GREY, np.uint8)
    planes = picture[None] if channels == 1 else picture.transpose(2, 0, 1)
    canvas[:, : geometry.height_px, : geometry.width_px] = planes
    return canvas, geometry


def with_channels(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """A picture as [H, W] (``channels`` 1) or [H, W, 3] (``channels`` 3), uint8.

    Raises:
        ValueError: dtype or shape is not a picture's, or ``channels`` is neither 1 nor 3.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"a picture of dtype {image.dtype}: it must be uint8")
    grey = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if not grey and not (image.ndim == 3 and image.shape[2] == 3):
        raise ValueError(f"a picture of shape {image.shape}: it must be [H, W] or [H, W, 3]")
    if 0 in image.shape:
        raise ValueError(f"a picture of shape {image.shape}: it is empty")
    if channels not in {1, 3}:
        raise ValueError(f"channels = {channels}: it must be 1 or 3")
    if grey:
        plane = image.reshape(image.shape[:2])
        return plane if channels == 1 else _uint8(cv2.cvtColor(plane, cv2.COLOR_GRAY2RGB))
    return image if channels == 3 else _uint8(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def from_pixel_format(image: NDArray[np.uint8], pixel_format: PixelFormat) -> NDArray[np.uint8]:
    """A camera's raw frame as a picture.

    Args:
        image: uint8 [H, W] for Mono8 and BayerRG8 (red at the top left), [H, W, 3] for RGB8.
        pixel_format: how the camera names it.

    Returns:
        uint8 [H, W] for Mono8, else [H, W, 3] RGB. Mono8 and RGB8 are not copied.

    Raises:
        ValueError: the shape does not belong to the format.
    """
    wanted = 3 if pixel_format == "RGB8" else 2
    if image.ndim != wanted or (wanted == 3 and image.shape[2] != 3):
        raise ValueError(f"a {pixel_format} frame of shape {image.shape}: it must be {'[H, W, 3]' if wanted == 3 else '[H, W]'}")
    match pixel_format:
        case "Mono8" | "RGB8":
            return image
        case "BayerRG8":
            # OpenCV names a pattern by its second row's second and third pixel: RGGB, GenICam's RG, is its BG.
            return _uint8(cv2.cvtColor(image, cv2.COLOR_BAYER_BG2RGB))
        case _:
            assert_never(pixel_format)


def boxes_to_image(boxes: NDArray[Any], geometry: LetterboxGeometry, image_height_px: int, image_width_px: int) -> NDArray[np.float32]:
    """Boxes on the canvas as boxes on the picture, cut at its borders.

    Args:
        boxes: [n, 4] (x1, y1, x2, y2), canvas px.
        geometry: what :func:`letterbox` returned.
        image_height_px: rows of the picture.
        image_width_px: columns of the picture.

    Returns:
        float32 [n, 4], picture px.
    """
    scale = np.array([geometry.scale_x, geometry.scale_y] * 2, np.float32)
    limits = np.array([image_width_px, image_height_px] * 2, np.float32)
    placed: NDArray[np.float32] = np.asarray(boxes, np.float32).reshape(-1, 4) / scale
    return np.minimum(np.maximum(placed, np.float32(0)), limits)


def boxes_to_canvas(boxes: NDArray[Any], geometry: LetterboxGeometry) -> NDArray[np.float32]:
    """Boxes [n, 4] on the picture as boxes on the canvas, float32 [n, 4]; the inverse of :func:`boxes_to_image`."""
    scale = np.array([geometry.scale_x, geometry.scale_y] * 2, np.float32)
    return np.asarray(boxes, np.float32).reshape(-1, 4) * scale


def _uint8(image: Any) -> NDArray[np.uint8]:  # noqa: ANN401 (OpenCV's own type is wider than what it returns here)
    """OpenCV's result with its dtype told."""
    return np.asarray(image, np.uint8)
