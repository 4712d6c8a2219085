"""The demonstration itself: command one of README.md, on fewer flights."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_DEMO = Path(__file__).parents[2] / "deploy" / "demo"


def test_the_demonstration_holds_every_check_and_leaves_nothing_running(tmp_path: Path) -> None:
    # Generous: a first run makes the virtual environment.
    demo = subprocess.run(
        [_DEMO, "--quick", "--state-dir", tmp_path / "demo"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    shown = demo.stdout + demo.stderr
    assert demo.returncode == 0, shown
    for line in (
        r"SIGKILL of capture \(pid \d+\)",
        r"SIGKILL of the sink \(pid \d+\)",
        r"verification while traffic runs: OK",
        r"verification at rest: OK, .* coverage 100\.0%",
        r"names exactly these three: status 16",
        r"^rows +[\d,]+ in source and replica$",
        r"^transactions +[\d,]+ committed",
        r"^events/s +[\d,]+ rows copied",
        r"^latency +p50 [\d,]+ ms, p99 [\d,]+ ms",
        r"^kills survived +2 of 2",
        r"^differences +3 planted, 3 found, 3 repaired, 0 left$",
        r"^servers +all stopped",
    ):
        assert re.search(line, shown, re.MULTILINE), f"{line} is not in:\n{shown}"
    assert "✘" not in shown
    assert not (tmp_path / "demo" / "data").exists()
