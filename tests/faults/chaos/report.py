"""The table of a run: on the terminal, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Row:
    """One kind of fault."""

    fault: str
    group: str
    injected: int = 0
    witness: str = ""
    parts: int = 0
    passed: int = 0
    rejected: int = 0
    uninspected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    passed_at_controller: int = 0
    in_blind: int = 0
    unaccounted: list[str] = field(default_factory=list)
    false_pass: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    skipped: str = ""

    @property
    def good(self) -> bool:
        """Whether the fault happened and nothing went wrong."""
        return bool(self.skipped) or (self.injected > 0 and not self.unaccounted and not self.false_pass and not self.problems)


COLUMNS = ("fault", "times", "parts", "PASS", "REJECT", "UNINSP.", "in blind", "unaccounted", "false PASS", "s", "")
WIDTHS = (28, 6, 6, 6, 6, 7, 8, 11, 10, 5, 9)


def heading() -> str:
    """The line above the table."""
    return _line(COLUMNS)


def line(row: Row) -> str:
    """One line of the table."""
    if row.skipped:
        return _line((row.fault, *[""] * 9, f"skipped: {row.skipped}"))
    counts = (row.injected, row.parts, row.passed, row.rejected, row.uninspected, row.in_blind, len(row.unaccounted), len(row.false_pass))
    return _line((row.fault, *(str(count) for count in counts), f"{row.seconds:.0f}", "" if row.good else "FAILED"))


def _line(cells: tuple[str, ...]) -> str:
    first, *others = zip(cells, WIDTHS, strict=True)
    return "  ".join([first[0].ljust(first[1])] + [cell.rjust(width) for cell, width in others]).rstrip()


def write_json(path: Path, rows: list[Row], seed: int, seconds: float) -> None:
    """All of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seed": seed, "seconds": round(seconds, 1), "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def write_markdown(path: Path, rows: list[Row], texts: dict[str, str]) -> None:
    """The table as a page has it; ``texts``: what each kind does."""
    head = "| Fault | What happens | Witness | Times | Parts | PASS | REJECT | UNINSPECTED | In blind | Unaccounted | False PASS |"
    lines = [head, "|---|---|---" + "|---:" * 8 + "|"]
    for row in rows:
        counts = (row.injected, row.parts, row.passed, row.rejected, row.uninspected, row.in_blind, len(row.unaccounted), len(row.false_pass))
        cells = ("skipped: " + row.skipped,) if row.skipped else (row.witness, *(str(count) for count in counts))
        lines.append(" | ".join((f"| `{row.fault}`", texts[row.fault], *cells)) + " |")
    path.write_text("\n".join(lines) + "\n")
