"""``inspector check``: is a station file fit to run?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check(
    station: Annotated[Path, typer.Argument(help="The station file (TOML).", show_default=False)],
) -> None:
    """Check a station file, its product recipe and its engine, without starting anything.

    All problems are listed at once, each with file and key; exit code 78 for the files, 70 for the engine.
    """
    from inspector.config.station import read_station
    from inspector.daemon.check import check_station

    files = read_station(station)
    for line in check_station(files):
        print(line)
    print(f"{station}: fit to run")
