"""What an exported ONNX says about itself, read without the onnx package: a station that rebuilds an engine has none."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from inspector.config.recipe import Recipe, parse_recipe
from inspector.contract.errors import ConfigError, EngineError
from inspector.engine.manifest import Stage

if TYPE_CHECKING:
    from pathlib import Path

    from inspector.config.network import Precision

# Field numbers of onnx.proto: ModelProto.metadata_props, StringStringEntryProto.key and .value.
METADATA_FIELD, KEY_FIELD, VALUE_FIELD = 14, 1, 2
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""
EXPORT_AGAIN = "export it with `inspector compile RECIPE.toml --weights FILE --out FOLDER`"


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the graph between named tensors."""

    name: str
    outputs: tuple[str, ...]
    float32: bool
    """Whether it computes coordinates, and so runs in float32 whatever the engine's precision."""


@dataclass(frozen=True, slots=True)
class Network:
    """An exported network."""

    recipe: Recipe
    weights_sha256: str
    parts: tuple[Part, ...]
    """In their order; the last one's outputs are the network's."""

    def stages(self, precision: Precision) -> tuple[Stage, ...]:
        """Where the graph is cut for a precision: not at all for float32, else between what computes coordinates and what does not.

        Neighbouring parts of one kind stay together: every cut costs a copy of what crosses it.
        """
        if precision == "fp32":
            return (Stage("whole", "fp32", self.parts[-1].outputs),)
        stages: list[Stage] = []
        for part in self.parts:
            wanted: Precision = "fp32" if part.float32 else precision
            if stages and stages[-1].precision == wanted:
                last = stages.pop()
                stages.append(Stage(f"{last.name}+{part.name}", wanted, (*last.outputs, *part.outputs)))
            else:
                stages.append(Stage(part.name, wanted, part.outputs))
        return tuple(stages)

    def trunk_logits(self) -> tuple[str, ...]:
        """Names of the region proposals' logits, which the first part ends in."""
        return tuple(name for name in self.parts[0].outputs if name.startswith("rpn_logits"))


def read_network(path: Path) -> Network:
    """What an exported ONNX says about itself.

    Raises:
        EngineError: the file is missing, is no ONNX, or was not exported by ``inspector``.
    """
    try:
        about = read_metadata(path)
        recipe = parse_recipe(f"{path} (the recipe inside)", json.loads(about["recipe"]))
        parts = tuple(Part(str(part["name"]), tuple(part["outputs"]), bool(part["float32"])) for part in json.loads(about["parts"]))
        return Network(recipe, about["weights_sha256"], parts)
    except OSError as error:
        raise EngineError(f"{path}: cannot be read ({error.strerror}): {EXPORT_AGAIN}") from None
    except ConfigError as error:
        raise EngineError(f"{error.problems[0]}: {EXPORT_AGAIN}") from None
    except (KeyError, TypeError, ValueError):
        raise EngineError(f"{path}: is no network that inspector exported (its metadata is missing or damaged): {EXPORT_AGAIN}") from None


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata properties of an ONNX file; the graph is skipped, not read.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no ONNX file.
    """
    found: dict[str, str] = {}
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        while file.tell() < end:
            field, kind = divmod(_varint(file), 8)
            if kind == DELIMITED and field == METADATA_FIELD:
                key, value = _entry(file)
                found[key] = value
            else:
                _skip(file, kind, end)
    return found


def _entry(file: BinaryIO) -> tuple[str, str]:
    """Key and value of one property."""
    end = _varint(file) + file.tell()
    fields: dict[int, str] = {}
    while file.tell() < end:
        field, kind = divmod(_varint(file), 8)
        if kind != DELIMITED:
            raise ValueError("not an ONNX file")
        fields[field] = file.read(_varint(file)).decode()
    return fields.get(KEY_FIELD, ""), fields.get(VALUE_FIELD, "")


def _skip(file: BinaryIO, kind: int, end: int) -> None:
    """Pass over one field's value."""
    if kind == VARINT:
        _varint(file)
    elif kind in {DELIMITED, FIXED64, FIXED32}:
        file.seek({FIXED64: 8, FIXED32: 4}.get(kind) or _varint(file), os.SEEK_CUR)
    else:
        raise ValueError("not an ONNX file")
    if file.tell() > end:
        raise ValueError("the ONNX file is cut short")


def _varint(file: BinaryIO) -> int:
    """A number in protobuf's variable-length code."""
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("the ONNX file is cut short")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("not an ONNX file")
