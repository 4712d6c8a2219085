"""Ctrl-C ends a command quietly at any moment, with the documented status."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest


@pytest.mark.parametrize("after", [0.02, 0.1, 0.3])
def test_an_interrupt_at_the_start_is_no_traceback(after: float) -> None:
    # The interpreter is up once it says so; what follows is the command loading itself.
    program = "import cdc.cli.entry as entry; print('up', flush=True); entry.main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "run", "/nowhere/source.toml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert "Traceback" not in said
    assert process.returncode in (130, 2), said  # or it was done before
