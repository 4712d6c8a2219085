"""Java programs from Maven repositories, resolved once into a cache directory.

An entry of the cache appears by a rename when it is complete, so an interrupted resolve leaves nothing that
looks whole; a lock on the cache lets several processes ask at once.
Which repositories are asked is Maven's own configuration.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

from cdc.errors import Failed
from cdc.local.versions import APICURIO_ARCHIVE, KAFKA_JARS, MAVEN_DEPENDENCY_PLUGIN

_PLUGIN = (
    f"org.apache.maven.plugins:maven-dependency-plugin:{MAVEN_DEPENDENCY_PLUGIN}:copy-dependencies"
)
_UNFINISHED = ".unfinished-"

Resolve = Callable[[Sequence[str], Path, bool], None]


def cache_directory() -> Path:
    """``$CDC_CACHE``, else ``cdc`` below ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := os.environ.get("CDC_CACHE"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "cdc").absolute()


def kafka_jars(cache: Path) -> Path:
    """The directory of the broker's jars."""
    return entry(cache, "kafka", KAFKA_JARS, transitive=True)


def apicurio_jars(cache: Path) -> Path:
    """The directory of the unpacked schema registry."""
    return entry(cache, "apicurio", (APICURIO_ARCHIVE,), transitive=False)


def entry(
    cache: Path,
    name: str,
    coordinates: Sequence[str],
    *,
    transitive: bool,
    resolve: Resolve | None = None,
) -> Path:
    """The directory of what ``coordinates`` name, complete; ``resolve`` fills it if it is not there.

    A ``tar.gz`` among it is unpacked.
    """
    digest = hashlib.sha256("\n".join(coordinates).encode()).hexdigest()[:12]
    found = cache / f"{name}-{digest}"
    if found.is_dir():
        return found
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "lock"):
        if found.is_dir():  # another process resolved it while we waited
            return found
        for abandoned in cache.glob(f"{name}{_UNFINISHED}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f"{name}{_UNFINISHED}", dir=cache))
        try:
            (resolve or _resolve)(coordinates, work, transitive)
            for archive in work.glob("*.tar.gz"):
                with tarfile.open(archive) as packed:
                    packed.extractall(work, filter="data")
                archive.unlink()
            work.rename(found)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return found


def _resolve(coordinates: Sequence[str], directory: Path, transitive: bool) -> None:  # noqa: FBT001 - as Resolve says
    maven = shutil.which("mvn")
    if maven is None:
        raise Failed(
            "Maven is needed once, to fetch Kafka and the schema registry, and mvn is not on PATH",
            "install it with the system's package manager (apt-get install maven, dnf install maven, "
            "brew install maven)",
        )
    pom = directory / "pom.xml"
    pom.write_text(_project(coordinates, transitive=transitive), encoding="utf-8")
    command = [maven, "-q", "-B", "-f", str(pom), _PLUGIN]
    command += [f"-DoutputDirectory={directory}", "-DincludeScope=runtime"]
    answer = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if answer.returncode:
        output = (answer.stdout + answer.stderr).splitlines()
        reason = next((line for line in output if "ERROR" in line), "no message")
        raise Failed(
            f"Maven could not resolve {coordinates[0]}: {reason.removeprefix('[ERROR] ').strip()}",
            "check the network and Maven's settings.xml, then run the command again",
        )
    pom.unlink()


def _project(coordinates: Sequence[str], *, transitive: bool) -> str:
    exclusion = "<exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion>"
    exclusions = "" if transitive else f"<exclusions>{exclusion}</exclusions>"
    dependencies = []
    for coordinate in coordinates:
        fields = zip(
            ("groupId", "artifactId", "version", "type", "classifier"),
            coordinate.split(":"),
            strict=False,
        )
        named = "".join(f"<{field}>{escape(value)}</{field}>" for field, value in fields)
        dependencies.append(f"<dependency>{named}{exclusions}</dependency>")
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>cdc</groupId><artifactId>servers</artifactId><version>1</version><packaging>pom</packaging>"
        f"<dependencies>{''.join(dependencies)}</dependencies></project>"
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
