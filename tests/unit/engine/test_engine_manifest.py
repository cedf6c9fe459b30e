from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from inspector.contract.errors import EngineError, ExitCode
from inspector.engine.cpu import available_threads, cpu_device
from inspector.engine.manifest import (
    Manifest,
    check_backend,
    check_device,
    encode_manifest,
    load_manifest,
    manifest_hash,
    read_manifest,
)


def test_a_manifest_survives_its_file(engine_file: Path, manifest: Manifest) -> None:
    loaded = load_manifest(engine_file)
    assert loaded == manifest
    assert manifest_hash(loaded) == manifest_hash(manifest)
    assert loaded.recipe.name == "tiny"


def test_any_difference_gives_another_hash(manifest: Manifest) -> None:
    other = msgspec.structs.replace(manifest, weights_sha256="1" * 64)
    assert manifest_hash(other) != manifest_hash(manifest)


@pytest.mark.parametrize("role", ["onnx", "manifest"])
def test_a_missing_file_is_named_with_the_mend(engine_file: Path, role: str) -> None:
    missing = engine_file if role == "manifest" else engine_file.with_name("tiny.onnx")
    missing.unlink()
    with pytest.raises(EngineError, match=rf"{missing.name}.*cannot be read.*inspector compile") as caught:
        load_manifest(engine_file)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.ENGINE


def test_one_changed_byte_in_the_network_is_refused(engine_file: Path) -> None:
    network = engine_file.with_name("tiny.onnx")
    raw = bytearray(network.read_bytes())
    raw[len(raw) // 2] ^= 1
    network.write_bytes(raw)
    with pytest.raises(EngineError, match=r"tiny\.onnx: is not the onnx file.*SHA-256.*inspector compile"):
        load_manifest(engine_file)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text[: len(text) // 2], "is no engine manifest"),
        (lambda text: text.replace('"schema": 1', '"schema": 99'), "schema 99"),
        (lambda text: text.replace('"threads": 1', '"threads": "many"', 1).replace('"budget_ms"', '"budget_s"'), "damaged|refuses"),
        (lambda text: text.replace('"height_px": 64', '"height_px": 63'), "recipe that this version of inspector refuses"),
        (lambda text: "[]", "is no engine manifest"),
    ],
)
def test_a_damaged_or_foreign_manifest_is_one_clear_sentence(engine_file: Path, change: object, told: str) -> None:
    text = engine_file.read_text(encoding="utf-8")
    changed = change(text)  # type: ignore[operator]
    assert changed != text
    engine_file.write_text(changed, encoding="utf-8")
    with pytest.raises(EngineError, match=told) as caught:
        read_manifest(engine_file)
    assert "inspector compile" in str(caught.value)


def test_another_library_version_is_refused(manifest: Manifest) -> None:
    check_backend(manifest, manifest.backend.name, manifest.backend.version)
    with pytest.raises(EngineError, match=r"was built with openvino .*, here is openvino 1999\.1"):
        check_backend(manifest, "openvino", "1999.1")


@pytest.mark.parametrize("field", ["architecture", "instructions", "kind"])
def test_another_machine_is_refused_but_a_renamed_one_is_not(manifest: Manifest, field: str) -> None:
    here = manifest.device
    check_device(manifest, msgspec.structs.replace(here, name="the same by another name"))
    other = msgspec.structs.replace(here, **{field: {"architecture": "riscv64", "instructions": ("none",), "kind": "gpu"}[field]})
    with pytest.raises(EngineError, match="was built for cpu"):
        check_device(manifest, other)


def test_the_file_is_json_that_people_can_read(manifest: Manifest) -> None:
    raw = encode_manifest(manifest)
    assert raw.count(b"\n") > 20
    assert json.loads(raw)["recipe_values"]["name"] == "tiny"


def test_a_cpu_is_known_by_its_arithmetic(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name : Some CPU\nflags : fpu avx2 avx512_bf16 sse\n\nprocessor : 1\nflags : other\n", encoding="utf-8")
    device = cpu_device(cpuinfo)
    assert (device.name, device.instructions) == ("Some CPU", ("avx2", "avx512_bf16"))
    assert available_threads(3) == 3
    assert available_threads() >= 1


def test_a_role_that_is_not_there_is_told(manifest: Manifest) -> None:
    with pytest.raises(EngineError, match="no plan file"):
        manifest.file("plan")
