"""The cache of jars holds whole entries only, whoever fills it and however often they are interrupted."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from cdc.errors import Failed
from cdc.local import jars

COORDINATES = ("org.example:thing:1",)


def test_an_interrupted_resolve_is_done_again(tmp_path: Path) -> None:
    def interrupted(_coordinates: Sequence[str], directory: Path, _transitive: bool) -> None:
        (directory / "half.jar").write_text("")
        raise KeyboardInterrupt

    def whole(_coordinates: Sequence[str], directory: Path, _transitive: bool) -> None:
        (directory / "whole.jar").write_text("")

    with pytest.raises(KeyboardInterrupt):
        jars.entry(tmp_path, "thing", COORDINATES, transitive=True, resolve=interrupted)
    # One that was killed leaves its work behind.
    (tmp_path / "thing.unfinished-dead").mkdir()
    found = jars.entry(tmp_path, "thing", COORDINATES, transitive=True, resolve=whole)
    assert [path.name for path in found.iterdir()] == ["whole.jar"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([found.name, "lock"])


def test_resolving_at_once_resolves_once(tmp_path: Path) -> None:
    calls = []

    def slow(_coordinates: Sequence[str], directory: Path, _transitive: bool) -> None:
        calls.append(directory)
        time.sleep(0.2)
        (directory / "thing.jar").write_text("")

    def ask() -> None:
        found = jars.entry(tmp_path, "thing", COORDINATES, transitive=True, resolve=slow)
        assert (found / "thing.jar").exists()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_other_coordinates_are_another_entry(tmp_path: Path) -> None:
    def resolve(coordinates: Sequence[str], directory: Path, _transitive: bool) -> None:
        (directory / coordinates[0].replace(":", "-")).write_text("")

    old = jars.entry(tmp_path, "thing", COORDINATES, transitive=True, resolve=resolve)
    new = jars.entry(tmp_path, "thing", ("org.example:thing:2",), transitive=True, resolve=resolve)
    assert old != new
    assert old.is_dir()


def test_an_archive_is_unpacked_and_not_kept(tmp_path: Path) -> None:
    def resolve(_coordinates: Sequence[str], directory: Path, _transitive: bool) -> None:
        with tarfile.open(directory / "thing-all.tar.gz", "w:gz") as archive:
            member = tarfile.TarInfo("lib/program.jar")
            member.size = 4
            archive.addfile(member, io.BytesIO(b"java"))

    found = jars.entry(tmp_path, "thing", COORDINATES, transitive=False, resolve=resolve)
    assert [path.name for path in found.iterdir()] == ["lib"]
    assert (found / "lib" / "program.jar").read_bytes() == b"java"


def test_a_missing_maven_is_told_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failed, match="mvn is not on PATH") as caught:
        jars.kafka_jars(tmp_path)
    assert "apt-get install maven" in caught.value.remedy


def test_a_failing_maven_is_told_by_its_first_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maven = tmp_path / "mvn"
    maven.write_text(
        "#!/bin/sh\necho '[ERROR] Could not find artifact x'\necho '[ERROR] more'\nexit 1\n"
    )
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(Failed, match="Could not find artifact x"):
        jars.apicurio_jars(tmp_path / "cache")


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("CDC_CACHE", raising=False)
    assert jars.cache_directory() == Path("/x/cdc")
    monkeypatch.setenv("CDC_CACHE", "/y")
    assert jars.cache_directory() == Path("/y")
