"""Connectors found by the entry point group ``cdc.connectors``: nothing of `cdc` imports one by name."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.metadata import entry_points

from cdc import accelerators
from cdc.connector import Connector, ConnectorClass
from cdc.errors import ConfigError

_GROUP = "cdc.connectors"


@cache
def plugins() -> dict[str, Connector]:
    """Every installed connector, by name. ConfigError for one that is installed and does not load."""
    found: dict[str, Connector] = {}
    for entry in entry_points(group=_GROUP):
        try:
            connector = entry.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"connector {entry.name} is installed and does not load: {error}",
                "install it again, with its dependencies",
            ) from error
        if not isinstance(connector, Connector):
            raise ConfigError(
                f"entry point {entry.name} is not a connector", "see cdc/connector.py for its shape"
            )
        found[entry.name] = connector
    return found


def acceleration() -> str:
    """Which compiled modules, ours and the connectors', are in use here: for the log, and beside the version."""
    theirs = (name for connector in plugins().values() for name in connector.accelerators)
    return accelerators.in_words([*accelerators.OURS, *theirs])


def find_class(name: str) -> tuple[Connector, ConnectorClass]:
    """The plug-in and class that a ``connector.class`` names. ConfigError with the nearest name when none does."""
    known = {cls.name: (plugin, cls) for plugin in plugins().values() for cls in plugin.classes}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    raise ConfigError(
        f"connector.class {name!r} is not known",
        f"did you mean {near[0]}?" if near else f"known are: {', '.join(sorted(known))}",
    )
