"""The schemas of our own wire, read from the package ``schemas`` (``schemas/<name>.avsc``)."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

JsonSchema = dict[str, Any]
"""An Avro schema in JSON's shape."""


@cache
def _text(name: str) -> str:
    return (resources.files("schemas") / f"{name}.avsc").read_text(encoding="utf-8")


def packaged_schema(name: str) -> JsonSchema:
    """A fresh copy of a packaged schema, in JSON's shape."""
    schema: JsonSchema = json.loads(_text(name))
    return schema


def schema_text(schema: JsonSchema) -> str:
    """JSON text as it is registered: compact, keys in their order."""
    return json.dumps(schema, separators=(",", ":"), ensure_ascii=False)
