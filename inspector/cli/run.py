"""``inspector run``: the daemon."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer


def run(
    station: Annotated[Path, typer.Argument(help="The station file (TOML).", show_default=False)],
) -> None:
    """Run a station until SIGTERM or Ctrl-C; then open parts close as `shutdown`, everything is flushed, exit code 0.

    Under systemd (Type=notify) it says READY after the engine's warm-up and feeds the watchdog while the inspection makes progress.
    """
    stops = (signal.SIGTERM, signal.SIGINT)
    for number in stops:  # until the daemon takes them nothing is started: leave at once
        signal.signal(number, lambda *_: sys.exit(0))

    from inspector.cli.messages import BackgroundHandler
    from inspector.config.station import read_station
    from inspector.daemon.station import Daemon

    files = read_station(station)  # what is wrong with it is told before anything runs
    under_systemd = "JOURNAL_STREAM" in os.environ  # which stamps the lines itself
    logging.basicConfig(
        handlers=[BackgroundHandler()],
        level=logging.INFO,
        format="%(levelname)s %(message)s" if under_systemd else "%(asctime)s %(levelname)s %(message)s",
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    daemon = Daemon(files)
    code = daemon.run()
    for number in stops:  # all is done: a further signal must not spoil the exit code
        signal.signal(number, signal.SIG_IGN)
    stuck = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon]
    if stuck or daemon.left_running:
        # Everything is flushed and told. Native code that does not return must not keep the process: the next start waits for it.
        logging.getLogger("inspector").error("left to the end of the process: %s", ", ".join(stuck) or "the engine that was loading")
        logging.shutdown()
        os._exit(code)
    raise typer.Exit(code)
