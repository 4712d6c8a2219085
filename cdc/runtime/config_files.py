"""Reads a connector's file: TOML or JSON, nested or flat, secrets by reference; checks every word of it.

Nothing is half obeyed: an unknown property is an error with the nearest name, a known one that is not supported says
why, and every value is parsed before anything starts.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cdc.config import ConnectorConfig, Setting
from cdc.connector import Connector, ConnectorClass
from cdc.errors import ConfigError
from cdc.runtime import settings
from cdc.runtime.plugins import find_class

log = logging.getLogger(__name__)

_REFERENCE = re.compile(r"\$\{(env|file):([^}]*)\}")


class SeveralProblems(ConfigError):
    """All that is wrong in a file; it reads as the first of them."""

    def __init__(self, problems: Sequence[ConfigError]) -> None:
        super().__init__(problems[0].what, problems[0].remedy)
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[SeveralProblems], tuple[Sequence[ConfigError]]]:  # type: ignore[override]
        return type(self), (self.problems,)


def load(path: Path) -> ConnectorConfig:
    """The checked configuration in this file; ConfigError names the file and what is wrong in it."""
    try:
        return check(_read(path))
    except SeveralProblems as error:
        raise SeveralProblems([_within(path, problem) for problem in error.problems]) from error
    except ConfigError as error:
        raise _within(path, error) from error


def check(raw: Mapping[str, Any]) -> ConnectorConfig:
    """The checked configuration of a file's content (``name`` and ``config``, or flat)."""
    given = _flat(raw)
    class_name = given.get("connector.class")
    if not class_name:
        raise ConfigError(
            "connector.class is missing", 'for example connector.class = "cdc.postgres.Source"'
        )
    plugin, cls = find_class(str(class_name))
    known = {setting.name: setting for setting in _settings(plugin, cls)}
    values = _defaults(known, cls)
    problems: list[ConfigError] = []
    for name, value in given.items():
        try:
            _set(values, known, name, value)
        except ConfigError as error:
            problems.append(error)
    problems += _missing(values, known, given)
    if problems:
        raise SeveralProblems(problems)
    for name, loss in cls.warnings.items():
        if name not in given:
            log.warning("%s: %s is not set, so %s", given.get("name"), name, loss)
    return ConnectorConfig(str(values["name"]), plugin.name, cls.role, cls.name, values)


def _within(path: Path, error: ConfigError) -> ConfigError:
    return ConfigError(f"{path}: {error.what}", error.remedy)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"cannot be read: {reason}", "check the path and its permissions"
        ) from error
    try:
        raw = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"is not JSON: {error.msg} at line {error.lineno}", "finish or correct the file"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML: {error}", "finish or correct the file") from error
    if not isinstance(raw, dict) or not raw:
        raise ConfigError("holds no properties", "see deploy/connectors for examples")
    return raw


def _flat(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names, from TOML's nested tables or Connect's ``config`` object; references resolved."""
    config = raw.get("config")
    if isinstance(config, dict) and set(raw) <= {"name", "config"}:
        raw = {**config, **({"name": raw["name"]} if "name" in raw else {})}
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{prefix}.{name}" if prefix else name, inner)
        else:
            flat[prefix] = _resolved(prefix, value)

    walk("", dict(raw))
    return flat


def _resolved(name: str, value: Any) -> Any:
    """The value with ``${env:NAME}`` and ``${file:PATH}`` replaced by what they refer to."""
    if not isinstance(value, str):
        return value

    def content(match: re.Match[str]) -> str:
        kind, where = match.groups()
        if kind == "env":
            if where not in os.environ:
                raise ConfigError(
                    f"{name} refers to the environment variable {where}, which is not set", "set it"
                )
            return os.environ[where]
        try:
            return Path(where).read_text(encoding="utf-8").rstrip("\n")
        except OSError as error:
            raise ConfigError(
                f"{name} refers to the file {where}: {error.strerror}", "check the path"
            ) from error

    return _REFERENCE.sub(content, value)


def _settings(plugin: Connector, cls: ConnectorClass) -> Sequence[Setting]:
    if cls.role == "source":
        return (*settings.SOURCE_SETTINGS, *plugin.source_settings)
    return (*settings.SINK_SETTINGS, *plugin.sink_settings)


def _defaults(known: Mapping[str, Setting], cls: ConnectorClass) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, setting in known.items():
        values[name] = {} if name.endswith(".*") else cls.defaults.get(name, setting.default)
    return values


def _set(values: dict[str, Any], known: Mapping[str, Setting], name: str, value: Any) -> None:
    name = settings.ALIASES.get(name, name)
    setting = known.get(name)
    if setting is None:
        _set_member(values, known, name, value)
        return
    if setting.unsupported:
        raise ConfigError(f"{name} is not supported: {setting.unsupported}", "leave it out")
    try:
        values[name] = setting.parse(value)
    except ValueError as error:
        shown = "its value" if setting.secret else repr(value)
        raise ConfigError(f"{name}: {shown}: {error}", setting.doc) from error


def _set_member(
    values: dict[str, Any], known: Mapping[str, Setting], name: str, value: Any
) -> None:
    """Set a property that stands for itself only as one of a family; of a secret family the name is secret too."""
    family = next((f for f in known if f.endswith(".*") and name.startswith(f[:-1])), None)
    if family is None:
        raise _unknown(name, known)
    setting = known[family]
    rest = name.removeprefix(family[:-1])
    try:
        values[family][rest] = setting.parse_member(rest, value)
    except ValueError as error:
        shown = family if setting.secret else name
        raise ConfigError(f"{shown}: {error}", setting.doc) from error


def _unknown(name: str, known: Mapping[str, Setting]) -> ConfigError:
    for refused, why in settings.UNSUPPORTED.items():
        if name == refused or name.startswith(f"{refused}."):
            return ConfigError(f"{name} is not supported: {why}", "leave it out")
    near = difflib.get_close_matches(name, [*known, *settings.ALIASES], n=1, cutoff=0.5)
    return ConfigError(
        f"{name} is not a property of this connector",
        f"did you mean {near[0]}?" if near else "leave it out",
    )


def _missing(
    values: Mapping[str, Any], known: Mapping[str, Setting], given: Mapping[str, Any]
) -> Iterator[ConfigError]:
    said = {settings.ALIASES.get(name, name) for name in given if given[name] not in (None, "")}
    for name, setting in known.items():
        if setting.required and values.get(name) in (None, "") and name not in said:
            yield ConfigError(f"{name} is missing", setting.doc)
