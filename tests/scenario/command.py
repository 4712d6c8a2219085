"""The command line as a user runs it: a process, its exit status, and what it said in one line each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

_LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ +\S+: ")


@dataclass(frozen=True)
class Said:
    """How a command ended. ``what`` and ``remedy`` are its error's two lines, without their heads."""

    status: int
    what: str
    remedy: str
    out: str
    err: str


def cdc(*arguments: object, env: Mapping[str, str] | None = None, seconds: float = 120) -> Said:
    """Run ``cdc`` to its end. Checks the form of an error: two lines beside the log's, and no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "cdc.cli.main", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, **(env or {})},
    )
    err = done.stderr
    assert "Traceback" not in err, err
    if done.returncode == 0:
        return Said(0, "", "", done.stdout, err)
    lines = [line for line in err.splitlines() if line and not _LOG_LINE.match(line)]
    assert len(lines) == 2, f"status {done.returncode}, expected two lines, found:\n{err}"
    assert lines[0].startswith("error: "), err
    assert lines[1].strip().startswith("do: "), err
    what, remedy = lines[0].removeprefix("error: "), lines[1].strip().removeprefix("do: ")
    assert what.strip(), err
    assert remedy.strip(), err
    return Said(done.returncode, what, remedy, done.stdout, err)
