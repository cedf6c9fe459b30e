"""From a manifest file to a running engine, whichever backend it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

from inspector.contract.errors import EngineError
from inspector.engine.classifier import Classifier
from inspector.engine.detector import Detector
from inspector.engine.guard import GuardedEngine
from inspector.engine.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from inspector.config.classifier import MapKind
    from inspector.engine.base import Engine
    from inspector.engine.guard import GuardPolicy

Made = TypeVar("Made")


def open_engine(path: Path) -> Engine:
    """The engine of a manifest file (``NAME.engine.json``).

    Raises:
        EngineError: the manifest, a file of it, the library or the device does not fit; one sentence with the mend.
    """
    backend = read_manifest(path).backend.name
    # A backend's library is loaded only where it is used: a station has one of them.
    match backend:
        case "openvino":
            from inspector.engine.openvino import open_openvino  # noqa: PLC0415

            return open_openvino(path)
        case "tensorrt" | "tensorrt_rtx":
            from inspector.engine.tensorrt import open_tensorrt  # noqa: PLC0415

            return open_tensorrt(path)
        case _:
            raise EngineError(f"{path}: names the backend {backend!r}, which computes nothing: compile an engine for this machine")


def open_detector(path: Path, policy: GuardPolicy | None = None) -> Detector:
    """The detector of a manifest file, opened anew once when it keeps failing (:class:`GuardedEngine`).

    Raises:
        EngineError: as :func:`open_engine`.
    """
    return _closing(GuardedEngine(lambda: open_engine(path), policy), Detector)


def open_classifier(path: Path, map_kind: MapKind | None = None, policy: GuardPolicy | None = None) -> Classifier:
    """The classifier of a manifest file, opened anew once when it keeps failing (:class:`GuardedEngine`).

    Args:
        path: the manifest.
        map_kind: which heat map it gives out; None: the recipe's.
        policy: when it is opened anew.

    Raises:
        EngineError: as :func:`open_engine`, or the engine is no classifier's.
    """
    return _closing(GuardedEngine(lambda: open_engine(path), policy), lambda engine: Classifier(engine, map_kind))


def _closing(engine: Engine, make: Callable[[Engine], Made]) -> Made:
    """What is made around an engine, which is closed if that is refused."""
    try:
        return make(engine)
    except EngineError:
        engine.close()
        raise


class EngineDetect:
    """A compiled engine as a function of one picture, for evaluation; a context manager that closes the engine."""

    def __init__(self, path: Path) -> None:
        self._detector = _closing(open_engine(path), Detector)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return self._detector.classes

    def __call__(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
        """Boxes [n, 4] in picture px, scores [n], classes [n] of a picture uint8 [H, W] or [H, W, 3], best first.

        Raises:
            EngineError: the engine failed on it.
        """
        found = self._detector.detect(image)
        return found.boxes_px, found.scores, found.labels

    def close(self) -> None:
        """Close the engine."""
        self._detector.close()

    def __enter__(self) -> Self:
        """The function itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()


def engine_detect(path: Path) -> EngineDetect:
    """A compiled engine as a function of one picture, to be closed after use.

    Raises:
        EngineError: as :func:`open_engine`.
    """
    return EngineDetect(path)
