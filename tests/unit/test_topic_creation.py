"""How data topics are made, by Kafka Connect's properties."""

from __future__ import annotations

from typing import Any

import pytest

from cdc.config import ConnectorConfig
from cdc.errors import ConfigError
from cdc.kafka.topics import NewTopicSpec
from cdc.runtime.topic_creation import TopicCreation


def creation(members: dict[str, str]) -> TopicCreation:
    values: dict[str, Any] = {
        "topic.creation.default.partitions": 4,
        "topic.creation.default.replication.factor": 0,
        "topic.creation.*": members,
    }
    return TopicCreation.of(ConnectorConfig("c", "postgres", "source", "any", values))


def test_the_first_group_that_takes_a_topic_makes_it_and_the_default_makes_the_rest() -> None:
    made = creation(
        {
            "groups": "wide, kept",
            "default.retention.ms": "1000",
            "wide.include": r"shop\.public\.(orders|lines)",
            "wide.partitions": "32",
            "wide.replication.factor": "2",
            "kept.include": r"shop\..*",
            "kept.exclude": r".*\.noise",
            "kept.cleanup.policy": "compact,delete",
        }
    )
    assert made.spec("shop.public.orders") == NewTopicSpec("shop.public.orders", "data", 32, 2)
    assert made.spec("shop.public.people") == NewTopicSpec(
        "shop.public.people", "data", 4, -1, {"cleanup.policy": "compact,delete"}
    )
    assert made.spec("shop.public.noise").settings == {"retention.ms": "1000"}
    assert made.spec("other").partitions == 4


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"wide.partitions": "3"}, "there is no group wide"),
        ({"groups": "wide", "wide.partitions": "3"}, r"wide\.include is missing"),
        ({"default.include": "x"}, r"default\.include is not for the default"),
        ({"default.retention": "3"}, r"no setting retention.*did you mean retention\.ms"),
        ({"groups": "w", "w.include": "x", "w.partitions": "0"}, r"w\.partitions: '0'"),
        ({"groups": "w", "w.include": "("}, "not a regular expression"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(members: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        creation(members)
