"""The command ``inspector``: its sub-commands, and what every one of them does with an expected failure."""

from __future__ import annotations

import sys

import typer

from inspector.cli.check import check
from inspector.cli.compile import compile_engine
from inspector.cli.demo import demo
from inspector.cli.evaluate import evaluate
from inspector.cli.explain import explain
from inspector.cli.keys import build_keys
from inspector.cli.log import log
from inspector.cli.run import run
from inspector.cli.surfaces import surfaces
from inspector.cli.train import train
from inspector.cli.watch import watch
from inspector.contract.errors import ExitCode, InspectorError

LINE, MODEL = "Station", "Models"


def build_app() -> typer.Typer:
    """The command line, as typer sees it."""
    app = typer.Typer(
        name="inspector",
        help="Inspects every part on a production line: one verdict per part, in time, never a silent loss.",
        epilog="Exit codes: 0 done, 2 usage, 65 data, 69 address in use, 70 engine, 73 journal, 78 configuration, 130 interrupted.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    app.command("demo", rich_help_panel=LINE)(demo)
    app.command("run", rich_help_panel=LINE)(run)
    app.command("check", rich_help_panel=LINE)(check)
    app.command("watch", rich_help_panel=LINE)(watch)
    app.command("log", rich_help_panel=LINE)(log)
    app.add_typer(build_keys(), name="keys", rich_help_panel=LINE)
    app.command("train", rich_help_panel=MODEL)(train)
    app.command("evaluate", rich_help_panel=MODEL)(evaluate)
    app.command("explain", rich_help_panel=MODEL)(explain)
    app.command("compile", rich_help_panel=MODEL)(compile_engine)
    app.command("surfaces", rich_help_panel=MODEL)(surfaces)
    return app


def main() -> None:
    """Run one command; expected failures become one clear sentence on stderr and a named exit code."""
    try:
        build_app()()
    except InspectorError as error:
        for line in str(error).splitlines():
            print(f"inspector: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("inspector: interrupted", file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has left: nothing more to say, and no traceback about it
        sys.exit(ExitCode.OK)


if __name__ == "__main__":
    main()
