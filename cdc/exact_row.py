"""Rows with values that their columns' Avro forms cannot carry.

An array of two dimensions has no form as an Avro array, a month no number of microseconds. Such a value stands in the
row as the nearest that its form can say, which is what every other reader of the topic gets; beside the row stands its
text, in a header of the record, and our sinks go by that. So a form that loses something loses nothing in a replica.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Self

EXACT_HEADER = "cdc.exact"


class ExactRow(bytes):
    """An encoded row; ``texts`` holds the exact values, as the source writes them, by column name."""

    texts: Mapping[str, str]

    def __new__(cls, row: bytes = b"", texts: Mapping[str, str] | None = None) -> Self:
        """Both have defaults, so that it can be pickled: a copy's rows come from a process of their own."""
        made = super().__new__(cls, row)
        made.texts = texts or {}
        return made


def texts_of(row: bytes | None) -> Mapping[str, str]:
    """The texts beside a row; mostly none."""
    return row.texts if isinstance(row, ExactRow) else {}


def exact_header(before: bytes | None, after: bytes | None) -> tuple[tuple[str, bytes], ...]:
    """The header of a record with these rows; none where neither has texts beside it."""
    images = {
        image: dict(texts)
        for image, row in (("before", before), ("after", after))
        if (texts := texts_of(row))
    }
    if not images:
        return ()
    return ((EXACT_HEADER, json.dumps(images, ensure_ascii=False).encode()),)


def with_texts(content: bytes, image: str, row: bytes | None) -> bytes | None:
    """A row of a record whose header has this content; ``image`` is before or after. ValueError for another content."""
    images = json.loads(content)
    if not isinstance(images, dict):
        raise ValueError(f"header {EXACT_HEADER} is no object")
    texts = images.get(image)
    if row is None or not texts:
        return row
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(f"header {EXACT_HEADER} holds what is no text")
    return ExactRow(row, texts)
