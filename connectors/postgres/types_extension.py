"""Types of extensions, by ``typname``. Their binary forms are read; a replica gets their text, which casts to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from cdc.table import AvroType
from connectors.postgres.codec import Codec, connect, text_like
from connectors.postgres.handling import Handling
from connectors.postgres.hstore import hstore_as_json, hstore_as_map
from connectors.postgres.types_scalar import versioned
from connectors.postgres.types_vector import halfvec, sparsevec, vector

LTREE: Final = "io.debezium.data.Ltree"


def staged_as_text(codec: Codec, avro: AvroType = "string") -> Codec:
    """The codec of a type whose oid differs from database to database: read in its form, written as its text."""
    plain = text_like("text", avro)
    return replace(codec, pg_type="text", avro=avro, decode=plain.decode)


Maker = Callable[[Handling], Codec]


def _always(codec: Callable[[], Codec]) -> Maker:
    return lambda _: codec()


EXTENSIONS: Final[dict[str, Maker]] = {
    "citext": _always(lambda: text_like("text")),
    "hstore": lambda handling: hstore_as_map() if handling.hstores == "map" else hstore_as_json(),
    "ltree": _always(
        lambda: staged_as_text(versioned("ltree", "string"), connect("string", LTREE))
    ),
    "lquery": _always(lambda: staged_as_text(versioned("lquery", "string"))),
    "ltxtquery": _always(lambda: staged_as_text(versioned("ltxtquery", "string"))),
    "vector": _always(vector),
    "halfvec": _always(halfvec),
    "sparsevec": _always(sparsevec),
}
"""By ``typname``."""
