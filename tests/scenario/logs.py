"""What a run's log must never hold, and how much of a thing it holds."""

from __future__ import annotations

from pathlib import Path


def assert_tidy(log: Path) -> None:
    """No traceback: whatever happens is told in a line, or was not foreseen."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    at = text.find("Traceback")
    assert at < 0, f"a traceback in {log}:\n{text[max(0, at - 300) : at + 3000]}"


def lines_with(text: str, part: str) -> list[str]:
    """The lines that hold ``part``."""
    return [line for line in text.splitlines() if part in line]
