"""``cdc``: the command line's entry. Every error ends as one line of what and one line of what to do."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from cdc import __version__
from cdc.cli import check, checkpoint, deadletter, local, run, table, verify, wait
from cdc.errors import CdcError, ConfigError
from cdc.runtime.plugins import acceleration
from cdc.telemetry import start_logging

app = typer.Typer(
    name="cdc",
    help="Change data capture on Kafka: replicas that always equal the source at some commit, and proof of it.",
    epilog="Exit status: 0 done and good; 1 failed; 2 usage or configuration; 3 a component cannot be reached; "
    "4 refused because data would be lost; 130 ended by Ctrl-C; verify adds 16 DIFF, 32 INCONCLUSIVE, 64 SKIPPED.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(deadletter.app, name="deadletter")
app.add_typer(local.app, name="local")
app.add_typer(table.app, name="table")
app.add_typer(verify.app, name="verify")

app.command(name="run")(run.run)
app.command(name="check")(check.check)
app.command(name="wait")(wait.wait)


def _version(value: bool) -> None:  # noqa: FBT001 - the form that typer calls
    if value:
        typer.echo(f"cdc {__version__}, {acceleration()}")
        raise typer.Exit


@app.callback()
def options(
    *,
    log_level: Annotated[
        str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.", envvar="CDC_LOG_LEVEL")
    ] = "WARNING",
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Set the log's level for every command."""
    level = log_level.upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ConfigError(
            f"{log_level} is no level of the log", "give DEBUG, INFO, WARNING or ERROR"
        )
    start_logging(level)


def main() -> None:
    """Run the command line; ends the process with the documented exit status."""
    try:
        app()
    except CdcError as error:
        show(error)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)


def show(error: CdcError) -> None:
    """The error on standard error: what, then what to do."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text("error: ", style="bold red") + Text(error.what))
    if error.remedy:
        console.print(Text("   do: ", style="bold") + Text(error.remedy))


if __name__ == "__main__":
    main()
