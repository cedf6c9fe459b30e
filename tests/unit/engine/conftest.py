from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from inspector.compile.build import new_manifest
from inspector.compile.network import Network, read_network
from inspector.config.recipe import DetectorRecipe
from inspector.engine.manifest import SUFFIX, Manifest, encode_manifest

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@pytest.fixture(scope="session")
def tiny_onnx() -> Path:
    return ASSETS / "tiny.onnx"


@pytest.fixture(scope="session")
def tiny(tiny_onnx: Path) -> Network:
    return read_network(tiny_onnx)


@pytest.fixture(scope="session")
def recipe(tiny: Network) -> DetectorRecipe:
    return tiny.recipe


@pytest.fixture(scope="session")
def manifest(tiny: Network) -> Manifest:
    return new_manifest(tiny, ASSETS)


@pytest.fixture(scope="session")
def manifest_bf16(tiny: Network, manifest: Manifest) -> Manifest:
    return msgspec.structs.replace(manifest, precision="bf16", stages=tiny.stages("bf16"))


@pytest.fixture
def engine_file(tmp_path: Path, tiny_onnx: Path, manifest: Manifest) -> Path:
    (tmp_path / "tiny.onnx").write_bytes(tiny_onnx.read_bytes())
    path = tmp_path / f"tiny{SUFFIX}"
    path.write_bytes(encode_manifest(manifest))
    return path
