"""What the simulator's C++ is made from: the node table, the declarations of GenTL, and the pages that describe them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from genicam import genapi, gentl

from inspector.camera.simulator import generate
from inspector.camera.simulator.nodes import CALL_FAULTS, CHUNKS, DEFAULT_MS, NODES, STRINGS, UNPLANNED, Fault

ROOT = Path(__file__).resolve().parents[3]
HEADER = ROOT / "inspector" / "camera" / "simulator" / "src" / "gentl.h"


def declared() -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"^    ([A-Z][A-Z0-9_]+) = (-?\d+),", HEADER.read_text(encoding="utf-8"), re.MULTILINE)}


def test_every_declared_value_is_the_one_of_the_standard_binding() -> None:
    binding = {}
    for name in dir(gentl):
        members = getattr(getattr(gentl, name), "__members__", None)
        if members:
            binding.update({member: int(value) for member, value in members.items()})
    ours = declared()
    assert len(ours) > 100
    assert {name: value for name, value in ours.items() if binding.get(name) != value} == {}


def test_the_description_is_taken_by_the_reference_parser_and_names_every_node() -> None:
    node_map = genapi.NodeMap()
    node_map.load_xml_from_string(generate.description())
    missing = [name for name in (*STRINGS, *CHUNKS, *(node.name for node in NODES)) if not node_map.has_node(name)]
    assert missing == []


def test_nodes_have_distinct_names_and_sensible_limits() -> None:
    assert len({node.name for node in NODES}) == len(NODES)
    for node in NODES:
        assert node.text, node.name
        if node.minimum is not None and node.maximum is not None:
            assert node.minimum <= node.initial <= node.maximum, node.name
        if node.entries:
            assert node.initial in {value for _, value in node.entries}, node.name


def test_fault_bits_are_single_and_dense() -> None:
    assert [fault.value for fault in Fault] == [1 << index for index in range(len(Fault))]


def test_written_includes_are_complete(tmp_path: Path) -> None:
    generate.write_includes(tmp_path)
    pieces = re.findall(r'R"XML\((.*?)\)XML"', (tmp_path / "description.inc").read_text(encoding="utf-8"), re.DOTALL)
    assert "".join(pieces) == generate.description()
    table = (tmp_path / "nodes.inc").read_text(encoding="utf-8")
    assert table.count('    {"') >= len(NODES)
    assert f"NODE_COUNT = {len(NODES)}" in table


def test_faults_of_calls_and_of_triggers_are_kept_apart_and_durations_belong_to_faults() -> None:
    assert not CALL_FAULTS & UNPLANNED
    assert not [fault for fault in DEFAULT_MS if fault in CALL_FAULTS]
    table = generate.register_table()
    assert f"CALL_FAULTS = {int(CALL_FAULTS)}ull" in table
    assert '{"line_bounce", FAULT_LINE_BOUNCE, 3000000}' in table


def test_the_docs_give_every_bit_of_the_trigger_log() -> None:
    text = (ROOT / "docs" / "camera.md").read_text(encoding="utf-8")
    told = {name: int(bit) for name, bit in re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)}
    assert told == {(fault.name or "").lower(): fault.bit_length() - 1 for fault in Fault if fault not in CALL_FAULTS}


@pytest.mark.parametrize("name", [node.name for node in NODES if node.name.startswith("Sim")] + [(fault.name or "").lower() for fault in Fault])
def test_the_docs_name_every_node_of_the_simulation_and_every_fault(name: str) -> None:
    assert f"`{name}`" in (ROOT / "docs" / "camera.md").read_text(encoding="utf-8")
