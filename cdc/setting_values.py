"""How the text of a property is read: each parser takes what a file holds and raises ValueError with a short reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any


def boolean(raw: Any) -> bool:
    """``true`` or ``false``, as TOML, JSON or text."""
    if isinstance(raw, bool):
        return raw
    text = str(raw).strip().lower()
    if text not in ("true", "false"):
        raise ValueError("true or false is expected")
    return text == "true"


def whole(low: int, high: int = 2**31 - 1) -> Callable[[Any], int]:
    """A whole number within bounds, both included."""

    def parse(raw: Any) -> int:
        if isinstance(raw, bool) or not re.fullmatch(r"-?\d+", str(raw).strip()):
            raise ValueError("a whole number is expected")
        value = int(str(raw))
        if not low <= value <= high:
            raise ValueError(f"a number from {low} to {high} is expected")
        return value

    return parse


def one_of(*values: str) -> Callable[[Any], str]:
    """One of these words, in any case."""

    def parse(raw: Any) -> str:
        text = str(raw).strip().lower()
        if text not in values:
            raise ValueError(f"one of {', '.join(values)} is expected")
        return text

    return parse


def only(value: str, reason: str) -> Callable[[Any], str]:
    """A property of which just this value is supported, and why."""

    def parse(raw: Any) -> str:
        text = str(raw).strip()
        if text.lower() != value.lower():
            raise ValueError(f"only {value!r} is supported: {reason}")
        return value

    return parse


def patterns(raw: Any) -> tuple[re.Pattern[str], ...]:
    r"""Regular expressions separated by commas (``\,`` is a comma itself), each matching a whole name, in any case.

    As Debezium reads them: https://debezium.io/documentation/reference/stable/connectors/postgresql.html
    """
    texts = raw if isinstance(raw, list) else re.split(r"(?<!\\),", str(raw))
    found = []
    for text in (str(text).strip().replace("\\,", ",") for text in texts):
        if text:
            try:
                found.append(re.compile(text, re.IGNORECASE))
            except re.error as error:
                raise ValueError(f"{text!r} is not a regular expression: {error}") from error
    return tuple(found)
