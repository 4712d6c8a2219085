"""``python -m deploy.flights``: options, errors as two lines, the exit status; Ctrl-C at any moment ends in order."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 130


def main() -> int:
    """Run the demonstration; its exit status."""
    # Imported here: Ctrl-C may come while that goes on.
    from rich.console import Console
    from rich.text import Text

    from cdc.errors import CdcError
    from deploy.flights.demo import run
    from deploy.flights.options import options
    from deploy.flights.screen import Screen

    chosen = options()
    try:
        return run(Screen(Console()), chosen)
    except CdcError as error:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(Text("error: ", style="bold red") + Text(error.what))
        if error.remedy:
            console.print(Text("   do: ", style="bold") + Text(error.remedy))
        return error.exit_status


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # Only the first one: what runs is being ended, and a second would leave it half ended.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: everything was stopped\n")
        sys.exit(_INTERRUPTED)
