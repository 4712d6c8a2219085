from __future__ import annotations

import pytest

from cdc.errors import ConfigError
from cdc.pipeline.selection import Selection


def test_a_selection_names_collections_and_leaves_our_own_topics_out() -> None:
    everything = Selection("a.b")
    assert everything.collection("a.b.s.items") == "s.items"
    assert everything.topic("s.items") == "a.b.s.items"
    for other in ("a.b.transaction", "a.b.watermark", "a.bc.s.items", "x"):
        assert everything.collection(other) is None


def test_a_regular_expression_matches_whole_names() -> None:
    some = Selection("p", regex=r"p\.s\.it.*")
    assert some.topic("s.items") == "p.s.items"
    assert some.topic("s.orders") is None
    assert Selection("p", regex="s.items").topic("s.items") is None


def test_a_topic_of_another_source_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"q\.s\.items"):
        Selection("p", ["q.s.items"])
    with pytest.raises(ConfigError, match="both"):
        Selection("p", ["p.s.items"], "p.*")


def test_topics_that_only_an_expression_takes_from_another_source_are_told() -> None:
    names = ["p.s.items", "p.transaction", "q.s.items", "q.transaction", "_schemas", "cdc.offsets"]
    assert Selection("p", regex=".*").of_other_sources(names) == ["q.s.items"]
    assert Selection("p", regex=r"(p|q)\.s\..*").of_other_sources(names) == ["q.s.items"]
    assert Selection("p", regex=r"p\..*").of_other_sources(names) == []
    assert Selection("p", topics=["p.s.items"]).of_other_sources(names) == []
    assert Selection("p").of_other_sources(names) == []
