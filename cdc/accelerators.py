"""Optional compiled forms of the hottest loops, chosen at import; Python's own forms are the reference.

A package's ``_name.c`` is compiled by ``deploy/build_accelerators.py`` where a C compiler is there. Whoever has one
asks for it here, and goes on in Python when there is none. ``CDC_PURE_PYTHON=1`` leaves them all out.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

SWITCH = "CDC_PURE_PYTHON"

_INCLUDE = re.compile(rb'^#include "([^"]+)"', re.MULTILINE)

OURS: Final[tuple[str, ...]] = ("cdc.avro._envelope", "cdc.avro._decoder")
"""The accelerators of this package; connectors name their own (`cdc.connector.Connector`)."""

_why_not: dict[str, str] = {}
"""Of those that were asked for and are not in use."""


def load(name: str) -> ModuleType | None:
    """The compiled module of this full name; None when it is switched off, not built, or of another source."""
    if os.environ.get(SWITCH, "0") not in ("", "0"):
        _why_not[name] = f"{SWITCH} is set"
        return None
    try:
        module = importlib.import_module(name)
    except ImportError:
        _why_not[name] = "not built"
        return None
    if not _is_of_its_source(module):
        _why_not[name] = "built from another source"
        return None
    _why_not.pop(name, None)
    return module


def in_words(names: Sequence[str]) -> str:
    """Which of these are in use in this process, and why others are not."""
    used = [name for name in names if load(name) is not None]
    left: dict[str, list[str]] = {}
    for name in names:
        if why_not := _why_not.get(name):
            left.setdefault(why_not, []).append(name)
    without = "; ".join(f"{', '.join(those)}: {why_not}" for why_not, those in left.items())
    if not used:
        return f"pure Python ({without})" if without else "pure Python"
    return f"accelerated by {', '.join(used)}" + (f" (not by {without})" if without else "")


def digest_of(root: Path, source: Path) -> str:
    """What an extension remembers of its source below ``root``, and of the headers of ours that this includes."""
    digest = hashlib.sha256()
    wanted, seen = [source], set[Path]()
    while wanted:
        path = wanted.pop()
        if path not in seen:
            seen.add(path)
            text = (root / path).read_bytes()
            digest.update(text)
            wanted += [Path(name.decode()) for name in _INCLUDE.findall(text)]
    return digest.hexdigest()[:16]


def _is_of_its_source(module: ModuleType) -> bool:
    """In a working copy the source stands beside it, and may be newer."""
    root = Path(__file__).parent.parent
    source = Path(*module.__name__.split(".")).with_suffix(".c")
    if not (root / source).is_file():
        return True
    return bool(digest_of(root, source) == module.SOURCE_DIGEST)
