"""An engine that fits this machine: the one that is there, or one built anew from its ONNX. Needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.compile import reference as references
from inspector.compile.build import build_engine
from inspector.compile.network import read_network
from inspector.contract.errors import EngineError
from inspector.engine import manifest as manifests
from inspector.engine.cpu import cpu_device
from inspector.engine.openvino import library_version

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def ensure_built(onnx: Path, out: Path, progress: Callable[[str], None] = lambda _: None) -> Path:
    """The manifest of an engine in ``out`` that was built from ``onnx`` for this machine and its libraries; built if there is none.

    Args:
        onnx: a compiled network with its ``NAME.reference.npz`` beside it.
        out: folder of the engine.
        progress: told what is being done, if anything is.

    Raises:
        EngineError: the network or its reference is damaged, or the engine does not repeat it.
    """
    name = read_network(onnx).recipe.name
    path = out / f"{name}{manifests.SUFFIX}"
    if not _fits(path, onnx):
        build_engine(onnx, references.load_reference(onnx.with_name(name + references.SUFFIX)), out, progress=progress)
    return path


def _fits(path: Path, onnx: Path) -> bool:
    if not path.is_file():
        return False
    try:
        manifest = manifests.load_manifest(path)
        manifests.check_backend(manifest, "openvino", library_version())
        manifests.check_device(manifest, cpu_device())
    except EngineError:
        return False  # another machine's, another library's, or damaged: built anew
    return manifest.file("onnx").sha256 == manifests.file_sha256(onnx)
