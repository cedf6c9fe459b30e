"""``inspector watch`` beside the real daemon shows a gap, its repair, a blind interval, a dead station and a new start, each as such."""

from __future__ import annotations

import json
import re
from pathlib import Path
from runpy import run_path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STORY = run_path(str(ROOT / "tests" / "assets" / "watch_story.py"))


def test_the_story(site: Any) -> None:
    site.write(site.camera(rate=50))
    scenes = STORY["tell"](site)
    gap = "\n".join(scenes["gap"])
    assert len(re.findall(r"#\d+ id \d+  (?:PASS|REJECT)", gap)) >= 4, "what was lost is shown when it is repaired"
    assert "DO NOT PASS" not in gap
    assert "BLIND" in scenes["blind"][1]
    assert "camera" in "\n".join(scenes["blind"])
    assert "nothing may pass" in scenes["dead"][-1]
    assert re.search(r"\d+ verdicts: PASS \d+, .* messages lost 3 in 1 gaps, 3 repaired; starts of the station 1", scenes["summary"][0])


def test_the_captures_of_the_docs_are_such_lines() -> None:
    """They have the form that the program has today."""
    text = (ROOT / "docs" / "watch.md").read_text()
    blocks = dict(re.findall(r"<!-- capture: (\w+) -->\n```text\n(.*?)\n```", text, re.DOTALL))
    expected = json.loads('{"live": "LIVE  boot", "gap": "REPAIRED  3", "blind": "BLIND", "dead": "DEAD", "boot": "BOOT", "summary": "3 repaired"}')
    assert {name: word in blocks.get(name, "") for name, word in expected.items()} == dict.fromkeys(expected, True)
