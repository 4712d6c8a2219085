from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cdc import accelerators

ROOT = Path(__file__).parent.parent.parent


def _builder() -> Any:
    spec = importlib.util.spec_from_file_location(
        "build_accelerators", ROOT / "deploy" / "build_accelerators.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _packages(root: Path) -> Path:
    """A checkout with one source, that does not compile."""
    (root / "cdc").mkdir()
    (root / "cdc" / "accelerators.py").write_bytes((ROOT / "cdc/accelerators.py").read_bytes())
    (root / "cdc" / "_broken.c").write_text("#error no good\n")
    return root


def test_the_switch_leaves_every_accelerator_out() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "cdc.cli.main", "--version"],
        env={**os.environ, accelerators.SWITCH: "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "pure Python" in said
    assert said.strip().endswith(f": {accelerators.SWITCH} is set)")


def test_what_was_never_built_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(accelerators.SWITCH, raising=False)
    assert accelerators.load("cdc._there_is_no_such") is None
    said = accelerators.in_words(["cdc._there_is_no_such"])
    assert said == "pure Python (cdc._there_is_no_such: not built)"


def test_one_of_another_source_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(accelerators.SWITCH, raising=False)
    stale = ModuleType("connectors.postgres._transcoder")
    stale.SOURCE_DIGEST = "of an older one"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, stale.__name__, stale)
    assert accelerators.load(stale.__name__) is None


def test_the_digest_is_also_of_the_headers_that_a_source_includes(tmp_path: Path) -> None:
    (tmp_path / "_a.c").write_text('#include "b.h"\n')
    (tmp_path / "b.h").write_text("/* one */\n")
    before = accelerators.digest_of(tmp_path, Path("_a.c"))
    (tmp_path / "b.h").write_text("/* two */\n")
    assert accelerators.digest_of(tmp_path, Path("_a.c")) != before


def test_a_source_that_does_not_compile_is_one_line_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _builder().build(_packages(tmp_path)) == {}
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.rglob("*.so"))


def test_without_a_compiler_nothing_is_built_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _builder().build(_packages(tmp_path)) == {}
    assert "there is no C compiler" in capsys.readouterr().err
