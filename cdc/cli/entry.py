"""The command's first step: until the command line is loaded, Ctrl-C ends the process as quietly as it does later."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ended before it was done, as shells have it."""


def main() -> None:
    """Run the command line; ends the process with the documented exit status."""
    signal.signal(signal.SIGINT, _end)
    from cdc.cli.main import main as command

    signal.signal(signal.SIGINT, signal.default_int_handler)
    command()


def _end(_number: int, _frame: FrameType | None) -> None:
    # Nothing has begun, and an exception out of an import would be told with its traceback.
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
