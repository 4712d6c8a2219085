"""Puts a table into ``table.include.list`` of a connector's file, and leaves every other character of it alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

from cdc.errors import ConfigError
from cdc.table import TableId

_SETTING = "table.include.list"
_TOML = re.compile(
    r"""^(?P<head>\s*"?table\.include\.list"?\s*=\s*)(?P<quote>["'])(?P<list>[^"'\n]*)(?P=quote)""",
    re.MULTILINE,
)


def include(path: Path, table: TableId) -> None:
    """Add the table's name, as a regular expression that matches it alone. ConfigError where the file has no such list."""
    text = path.read_text(encoding="utf-8")
    changed = _in_json(text, table) if path.suffix == ".json" else _in_toml(text, table)
    if changed is None:
        raise ConfigError(
            f"{path} does not select {table}, and has no {_SETTING} to add it to",
            f"let its lists select {table}, and run this again",
        )
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(changed, encoding="utf-8")
    fresh.chmod(path.stat().st_mode)
    fresh.replace(path)


def _in_json(text: str, table: TableId) -> str | None:
    raw = json.loads(text)
    within = raw.get("config") if isinstance(raw.get("config"), dict) else raw
    listed = within.get(_SETTING)
    if not isinstance(listed, str):
        return None
    before = json.dumps(listed)
    if text.count(before) != 1:
        within[_SETTING] = f"{listed},{_pattern(table)}"
        return json.dumps(raw, indent=2, ensure_ascii=False) + "\n"
    return text.replace(before, json.dumps(f"{listed},{_pattern(table)}"))


def _in_toml(text: str, table: TableId) -> str | None:
    found = list(_TOML.finditer(text))
    if len(found) != 1:
        return None
    (match,) = found
    pattern = _pattern(table)
    if match["quote"] == '"':
        pattern = pattern.replace("\\", "\\\\").replace('"', '\\"')
    elif "'" in pattern:
        return None
    return f"{text[: match.end() - 1]},{pattern}{text[match.end() - 1 :]}"


def _pattern(table: TableId) -> str:
    return re.escape(str(table)).replace(",", "\\,")
