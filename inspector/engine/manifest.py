"""The manifest of a compiled engine: what it was made from, for which machine, and what was measured."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from inspector.config.network import Precision
from inspector.config.recipe import Recipe, parse_recipe
from inspector.contract.errors import ConfigError, EngineError

SCHEMA = 1
SUFFIX = ".engine.json"
"""How a manifest's file name ends."""

Role = Literal["onnx", "plan", "reference"]


class EngineFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that belongs to the engine."""

    name: str
    """Relative to the manifest's folder."""
    sha256: str
    role: Role


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name, dtype and shape of an input or output, batch axis included."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Backend(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The library that runs the engine."""

    name: Literal["openvino", "tensorrt", "tensorrt_rtx", "null"]
    version: str


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The device that the engine was built and measured on."""

    kind: Literal["cpu", "gpu"]
    name: str
    """As the device calls itself; for people, not compared."""
    architecture: str
    """Machine type (``x86_64``), or a GPU's compute capability (``sm_89``)."""
    instructions: tuple[str, ...] = ()
    """Instruction sets of a CPU that decide which arithmetic is used, sorted."""


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the graph that is compiled on its own."""

    name: str
    precision: Precision
    outputs: tuple[str, ...]
    """Tensors that it computes, with all that they need and no earlier stage has computed; the last stage's are the network's outputs."""


class Parity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the engine's outputs are from the reference's."""

    reference: str
    """What gave the reference outputs, with its version."""
    proven_by: Literal["detections", "tensors", "classes"]
    """detections: by matched boxes. tensors: the network finds nothing (it is untrained), inner tensors were compared instead. classes: of a
    classifier, by the predicted classes."""
    images: int
    detections: int
    """Reference detections (of a classifier: images) that were compared."""
    matched: float
    """Share of them that the engine repeats (of regions, when proven by tensors)."""
    max_score_difference: float
    """Of matched pairs (of probabilities, when proven by tensors)."""
    max_box_difference_px: float | None = None
    """Largest difference of a coordinate of matched pairs, in pixels of the network's input; None: a classifier has none."""
    p99_box_difference_px: float | None = None
    trunk_relative_error: float | None = None
    """Largest error of the trunk's logits in the engine's precision, as a share of the largest; only when proven by tensors."""
    max_map_difference: float | None = None
    """Of a classifier's heat maps where the class is the same, as a share of the map's largest value."""


class Latency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Milliseconds from submitting a canvas to having its outputs, one image at a time, after warm-up."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    images: int
    threads: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that is known of a compiled engine."""

    schema: int
    recipe_values: dict[str, Any]
    """The whole recipe, as TOML would hold it."""
    files: tuple[EngineFile, ...]
    weights_sha256: str
    backend: Backend
    device: Device
    precision: Precision
    """Of trunk and head; box arithmetic, and a classifier's pooling, classes and heat maps are float32."""
    stages: tuple[Stage, ...]
    """Where the graph is cut, and the precision of each stage (docs/decisions/0002)."""
    threads: int
    """CPU threads of the engine."""
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    parity: Parity | None
    """None: never measured, which only an engine that computes nothing may say."""
    latency: Latency | None
    budget_ms: float
    created_utc: datetime

    @property
    def recipe(self) -> Recipe:
        """The recipe that the engine was made from. It was checked when the manifest was loaded."""
        return parse_recipe("the engine's manifest", self.recipe_values)

    def file(self, role: Role) -> EngineFile:
        """The engine's file of a role.

        Raises:
            EngineError: there is none.
        """
        for entry in self.files:
            if entry.role == role:
                return entry
        raise EngineError(f"the engine's manifest names no {role} file: {mend(self)}")


def mend(manifest: Manifest | None = None) -> str:
    """What to do about an engine that does not fit: one clause."""
    onnx = next((entry.name for entry in manifest.files if entry.role == "onnx"), "MODEL.onnx") if manifest else "MODEL.onnx"
    return f"build it again on this machine with `inspector compile {onnx} --out FOLDER`"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encode_manifest(manifest: Manifest) -> bytes:
    """A manifest as indented JSON, the same bytes for the same content."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def manifest_hash(manifest: Manifest) -> str:
    """SHA-256 of a manifest, hex: the engine's identity on results."""
    return hashlib.sha256(encode_manifest(manifest)).hexdigest()


def utc_now() -> datetime:
    """Now, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file, its recipe checked; its files are not looked at.

    Raises:
        EngineError: the file is missing, damaged, or of an unknown schema.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path}: the engine's manifest cannot be read ({error.strerror}): {mend()}") from None
    try:
        schema = msgspec.json.decode(raw, type=_SchemaOnly).schema
    except msgspec.MsgspecError:
        raise EngineError(f"{path}: is no engine manifest: {mend()}") from None
    if schema != SCHEMA:
        raise EngineError(f"{path}: has manifest schema {schema}, this version of inspector reads schema {SCHEMA}: {mend()}")
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
        parse_recipe(str(path), manifest.recipe_values)
    except msgspec.MsgspecError as error:
        raise EngineError(f"{path}: is a damaged engine manifest ({error}): {mend()}") from None
    except ConfigError as error:
        raise EngineError(f"{path}: holds a recipe that this version of inspector refuses ({error.problems[0]}): {mend()}") from None
    return manifest


class _SchemaOnly(msgspec.Struct):
    """What is read first of a manifest of any version."""

    schema: int


def load_manifest(path: Path) -> Manifest:
    """The manifest in a file, all of its files there and undamaged.

    Whether library and device fit is the backend's to say (:func:`check_backend`, :func:`check_device`).

    Raises:
        EngineError: manifest or a file of it is missing, damaged, or of an unknown schema.
    """
    manifest = read_manifest(path)
    for entry in manifest.files:
        file = path.parent / entry.name
        try:
            found = file_sha256(file)
        except OSError as error:
            raise EngineError(f"{file}: the engine's {entry.role} file cannot be read ({error.strerror}): {mend(manifest)}") from None
        if found != entry.sha256:
            raise EngineError(f"{file}: is not the {entry.role} file that {path.name} was made with (its SHA-256 differs): {mend(manifest)}")
    return manifest


def check_backend(manifest: Manifest, name: str, version: str) -> None:
    """Whether the installed library is the one that the engine was measured with.

    Raises:
        EngineError: another library, or another version of it.
    """
    wanted = manifest.backend
    if (wanted.name, wanted.version) != (name, version):
        raise EngineError(
            f"engine {manifest.recipe.name!r} was built with {wanted.name} {wanted.version}, here is {name} {version}: {mend(manifest)}"
        )


def check_device(manifest: Manifest, here: Device) -> None:
    """Whether this machine computes as the one that the engine was measured on.

    Raises:
        EngineError: another kind of device, architecture or set of instructions.
    """
    wanted = manifest.device
    if (wanted.kind, wanted.architecture, wanted.instructions) == (here.kind, here.architecture, here.instructions):
        return
    told = [" ".join((device.kind, device.name, device.architecture, *device.instructions)) for device in (wanted, here)]
    raise EngineError(f"engine {manifest.recipe.name!r} was built for {told[0]}, here is {told[1]}: {mend(manifest)}")
