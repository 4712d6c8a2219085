"""Compiles the optional accelerators: every ``_*.c`` in the packages becomes an extension of the same name.

    python deploy/build_accelerators.py     compile, beside the sources, what is missing or out of date

As hatchling's build hook it does the same for an editable install, and puts the extensions into a wheel.
It never fails an install: without a C compiler or Python's headers it says so in one line, and pure Python runs.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script, in an environment that only runs the package
    BuildHookInterface = object

PACKAGES = ("cdc", "connectors")
FLAGS = ("-O2", "-std=c11", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")
_SUFFIX = sysconfig.get_config_var("EXT_SUFFIX") or ".so"
_SECONDS = 300


class CannotCompile(Exception):
    """One line that says why."""


def sources(root: Path) -> list[Path]:
    """The accelerators' sources, relative to ``root``."""
    found = (path for package in PACKAGES for path in (root / package).rglob("_*.c"))
    return sorted(path.relative_to(root) for path in found)


def extension_of(source: Path) -> Path:
    """Where the extension of a source stands, beside it."""
    return source.with_name(source.stem + _SUFFIX)


def compile_one(root: Path, source: Path, target: Path, flags: tuple[str, ...] = FLAGS) -> None:
    """Compile one source into ``target``, which is there whole or not at all. CannotCompile."""
    compiler = _compiler()
    include = sysconfig.get_path("include")
    if not (Path(include) / "Python.h").is_file():
        raise CannotCompile(f"Python's headers are not in {include}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
        made = Path(folder) / "made.so"
        command = [
            *(*compiler, *flags, f'-DSOURCE_DIGEST="{_digest_of(root, source)}"'),
            *("-I", str(root), "-I", include, str(root / source), "-o", str(made)),
            *(["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotCompile(f"{compiler[0]}: {error}") from error
        if done.returncode:
            raise CannotCompile(
                f"{source}: {next(iter(_errors(done.stderr)), 'the compiler failed')}"
            )
        made.replace(target)


def build(root: Path) -> dict[Path, Path]:
    """Compile beside the sources what is not up to date; all sources that have an extension now, with it.

    Prints one line when it cannot.
    """
    built = {}
    for source in sources(root):
        target = extension_of(source)
        try:
            if not _is_fresh(root, source):
                compile_one(root, source, root / target)
            built[source] = target
        except (CannotCompile, OSError) as error:
            print(f"accelerators are not built, pure Python runs: {error}", file=sys.stderr)
            break
    return built


class AcceleratorHook(BuildHookInterface):  # type: ignore[misc,valid-type]  # hatchling need not be there
    """What hatchling calls before it makes a wheel, or an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; the files of a wheel that hold machine code make it one of this platform."""
        built = build(Path(self.root))
        if version == "standard" and self.target_name == "wheel" and built:
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            build_data["artifacts"] += [f"/{target}" for target in built.values()]


def _is_fresh(root: Path, source: Path) -> bool:
    target = root / extension_of(source)
    return target.is_file() and _digest_of(root, source).encode() in target.read_bytes()


def _digest_of(root: Path, source: Path) -> str:
    spec = importlib.util.spec_from_file_location("accelerators", root / "cdc" / "accelerators.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.digest_of(root, source))


def _compiler() -> list[str]:
    named = os.environ.get("CC") or sysconfig.get_config_var("CC") or ""
    for candidate in (named, "cc", "gcc", "clang"):
        words = candidate.split()
        if words and shutil.which(words[0]):
            return words
    raise CannotCompile("there is no C compiler")


def _errors(output: str) -> Iterator[str]:
    return (line for line in output.splitlines() if "error" in line)


if __name__ == "__main__":
    for extension in build(Path(__file__).resolve().parent.parent).values():
        print(extension)
