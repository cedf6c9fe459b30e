"""Writes what the C++ sources include: the camera's XML, its register table and its fault bits, all from ``nodes``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.camera.simulator.nodes import (
    CALL_FAULTS,
    CHUNKS,
    DEFAULT_MS,
    NODES,
    REGISTER_BASE,
    STRING_BASE,
    STRING_BYTES,
    STRINGS,
    UNPLANNED,
    Fault,
    Node,
)

if TYPE_CHECKING:
    from pathlib import Path

_SCHEMA = "http://www.genicam.org/GenApi/Version_1_1"
_LITERAL_PIECE = 8000  # compilers need not take longer string literals than 64 KiB


def _register(tag: str, name: str, address: int, access: str, *, port: str = "Device") -> str:
    sign = "<Sign>Signed</Sign>" if tag == "IntReg" else ""
    return (
        f'<{tag} Name="{name}"><Address>0x{address:X}</Address><Length>8</Length><AccessMode>{access}</AccessMode>'
        f"<pPort>{port}</pPort><Cachable>NoCache</Cachable>{sign}<Endianess>LittleEndian</Endianess></{tag}>"
    )


def _number(node: Node, value: float) -> str:
    return repr(float(value)) if node.kind == "float" else str(int(value))


def _feature(node: Node, address: int) -> str:
    register = node.name + "Reg"
    lines = [_register("FloatReg" if node.kind == "float" else "IntReg", register, address, node.access)]
    tag = {"integer": "Integer", "float": "Float", "boolean": "Boolean", "enumeration": "Enumeration", "command": "Command"}[node.kind]
    space = "Custom" if node.name.startswith("Sim") else "Standard"
    tip = node.text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    parts = [f'<{tag} Name="{node.name}" NameSpace="{space}"><ToolTip>{tip}</ToolTip>']
    if node.locked:
        parts.append("<pIsLocked>TLParamsLocked</pIsLocked>")
    if node.kind == "enumeration":
        parts += [f'<EnumEntry Name="{name}" NameSpace="{space}"><Value>{value}</Value></EnumEntry>' for name, value in node.entries]
    parts.append(f"<pValue>{register}</pValue>")
    if node.kind == "boolean":
        parts.append("<OnValue>1</OnValue><OffValue>0</OffValue>")
    if node.kind == "command":
        parts.append("<CommandValue>1</CommandValue>")
    if node.minimum is not None and node.maximum is not None:
        parts.append(f"<Min>{_number(node, node.minimum)}</Min><Max>{_number(node, node.maximum)}</Max>")
    if node.kind == "integer" and node.step is not None:
        parts.append(f"<Inc>{node.step}</Inc>")
    if node.unit and node.kind in {"integer", "float"}:
        parts.append(f"<Unit>{node.unit}</Unit>")
    parts += [f"<pSelected>{name}</pSelected>" for name in node.selects]
    lines.append("".join(parts) + f"</{tag}>")
    return "\n".join(lines)


def description() -> str:
    """The camera's GenApi XML."""
    categories: dict[str, list[str]] = {"DeviceControl": list(STRINGS)}
    features = [
        f'<StringReg Name="{name}" NameSpace="Standard"><Address>0x{STRING_BASE + index * STRING_BYTES:X}</Address>'
        f"<Length>{STRING_BYTES}</Length><AccessMode>RO</AccessMode><pPort>Device</pPort></StringReg>"
        for index, name in enumerate(STRINGS)
    ]
    for index, node in enumerate(NODES):
        categories.setdefault(node.category, []).append(node.name)
        features.append(_feature(node, REGISTER_BASE + 8 * index))
    for index, name in enumerate(CHUNKS):
        categories["ChunkDataControl"].append(name)
        features.append(f'<Port Name="{name}Port"><ChunkID>{index + 1:04X}</ChunkID></Port>')
        features.append(_register("IntReg", name, 0, "RO", port=name + "Port"))
    root = "".join(f"<pFeature>{name}</pFeature>" for name in categories)
    groups = [f'<Category Name="Root" NameSpace="Standard">{root}</Category>']
    for category, names in categories.items():
        members = "".join(f"<pFeature>{name}</pFeature>" for name in names)
        groups.append(f'<Category Name="{category}" NameSpace="Standard">{members}</Category>')
    head = (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<RegisterDescription xmlns="{_SCHEMA}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'ModelName="SimulatedCamera" VendorName="inspector" ToolTip="Simulated camera" StandardNameSpace="None" '
        'SchemaMajorVersion="1" SchemaMinorVersion="1" SchemaSubMinorVersion="0" MajorVersion="1" MinorVersion="0" SubMinorVersion="0" '
        'ProductGuid="4A1E6D0C-7C5B-4D1B-9E57-0B8C1D6E2F31" VersionGuid="4A1E6D0C-7C5B-4D1B-9E57-0B8C1D6E2F32" '
        f'xsi:schemaLocation="{_SCHEMA} {_SCHEMA}/GenApiSchema_Version_1_1.xsd">\n'
    )
    return head + "\n".join(groups + features) + '\n<Port Name="Device" NameSpace="Standard"/>\n</RegisterDescription>\n'


def _limit(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else repr(float(value))


def register_table() -> str:
    """C++: the nodes' positions, limits and initial values, the string registers, the chunks' number and the faults' bits."""
    names = ",\n".join(f"    {node.name}" for node in NODES)
    rows = []
    for node in NODES:
        low, high = node.minimum, node.maximum
        allowed = ", ".join(str(value) for _, value in node.entries)
        if node.kind == "boolean":
            low, high = 0, 1
        flags = (
            f"{str(node.kind == 'float').lower()}, {str(node.access != 'WO').lower()}, {str(node.access != 'RO').lower()}, {str(node.locked).lower()}"
        )
        rows.append(f'    {{"{node.name}", {flags}, {float(node.initial)!r}, {_limit(low, "-9e18")}, {_limit(high, "9e18")}, {{{allowed}}}}},')
    faults = ",\n".join(f"    FAULT_{fault.name} = {fault.value}ull" for fault in Fault)
    fault_names = "\n".join(
        f'    {{"{(fault.name or "").lower()}", FAULT_{fault.name}, {round(DEFAULT_MS.get(fault, 0.0) * 1e6)}}},' for fault in Fault
    )
    return "\n".join(
        (
            "// Written by inspector/camera/simulator/generate.py: change nodes.py instead.",
            f"enum class Node : uint32_t {{\n{names}\n}};",
            "const NodeInfo NODES[] = {",
            *rows,
            "};",
            f"constexpr uint64_t REGISTER_BASE = {REGISTER_BASE}, STRING_BASE = {STRING_BASE}, STRING_BYTES = {STRING_BYTES};",
            f"constexpr size_t STRING_COUNT = {len(STRINGS)}, CHUNK_COUNT = {len(CHUNKS)}, NODE_COUNT = {len(NODES)};",
            f"enum Fault : uint64_t {{\n{faults}\n}};",
            f"constexpr uint64_t CALL_FAULTS = {CALL_FAULTS.value}ull, UNPLANNED_FAULTS = {UNPLANNED.value}ull;",
            f"const FaultName FAULT_NAMES[] = {{\n{fault_names}\n}};",
            "",
        )
    )


def write_includes(folder: Path) -> None:
    """``description.inc`` (the XML as a C++ string) and ``nodes.inc`` into ``folder``."""
    xml = description()
    pieces = [f'R"XML({xml[at : at + _LITERAL_PIECE]})XML"' for at in range(0, len(xml), _LITERAL_PIECE)]
    (folder / "description.inc").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (folder / "nodes.inc").write_text(register_table(), encoding="utf-8")
