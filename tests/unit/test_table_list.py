"""A table put into a connector's file: one list is longer, the rest of the file is as it was."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from cdc.errors import ConfigError
from cdc.runtime.table_list import include
from cdc.table import TableId

LINES = TableId("public", "li.nes")


@pytest.mark.parametrize(
    "text",
    [
        '# ours\nname = "n"\n"table.include.list" = "public\\\\.orders"  # grows\nx = 1\n',
        "name = 'n'\n'x' = 1\ntable.include.list = 'public\\.orders'\n",
    ],
)
def test_a_toml_list_grows_and_comments_stay(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    path.chmod(0o600)
    include(path, LINES)
    grown = path.read_text()
    found = tomllib.loads(grown)
    listed = found.get("table.include.list") or found["table"]["include"]["list"]
    assert listed == r"public\.orders,public\.li\.nes"
    assert grown.splitlines()[0] == text.splitlines()[0]
    assert ("# grows" in grown) == ("# grows" in text)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("nested", [True, False])
def test_a_json_list_grows(tmp_path: Path, nested: bool) -> None:
    path = tmp_path / "c.json"
    config = {"table.include.list": "public\\.orders", "a": "public.orders"}
    path.write_text(json.dumps({"name": "n", "config": config} if nested else config, indent=4))
    include(path, LINES)
    raw = json.loads(path.read_text())
    assert (raw["config"] if nested else raw) == {
        "table.include.list": r"public\.orders,public\.li\.nes",
        "a": "public.orders",
    }


@pytest.mark.parametrize("text", ["name = 'n'\n", "[table]\ninclude.list = 'x'\n"])
def test_a_file_without_such_a_list_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"no table\.include\.list"):
        include(path, LINES)
    assert path.read_text() == text
