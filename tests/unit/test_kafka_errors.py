"""The client's errors become what happens next, and its log is quiet and plain."""

from __future__ import annotations

import logging

import pytest
from confluent_kafka import KafkaError, KafkaException

from cdc.errors import CdcError, ConfigError, Fenced, Refused, Unreachable
from cdc.kafka import codes
from cdc.kafka.client import CLIENT_LOG, ClientWatch, override_checked
from cdc.kafka.errors import translate


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, Refused),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, Refused),
        (codes.AUTO_OFFSET_RESET, Refused),
        (codes.FENCED, Fenced),
        (KafkaError.INVALID_PRODUCER_EPOCH, Fenced),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, ConfigError),
        (codes.ALL_BROKERS_DOWN, Unreachable),
        (KafkaError.NOT_ENOUGH_REPLICAS, Unreachable),
    ],
)
def test_an_error_is_sorted_by_what_happens_next(code: int, kind: type[CdcError]) -> None:
    error = translate(KafkaException(KafkaError(code)), "writing to orders[3]")
    assert type(error) is kind
    assert error.what.startswith("writing to orders[3]: ")
    assert error.remedy


def test_a_refused_login_counts_only_when_it_repeats_without_success() -> None:
    watch = ClientWatch("writing")
    refused = KafkaError(codes.AUTHENTICATION)
    watch.on_error(refused)
    watch.on_error(refused)
    watch.on_success()
    watch.on_error(refused)
    watch.on_error(refused)
    watch.check()
    watch.on_error(refused)
    with pytest.raises(ConfigError):
        watch.check()


def test_an_outage_is_told_and_ends_with_the_first_answer() -> None:
    watch = ClientWatch("writing")
    watch.on_error(KafkaError(codes.ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert watch.outage == "1/1 brokers are down"
    watch.check()
    watch.on_success()
    assert watch.outage == ""


def test_settings_that_correctness_stands_on_cannot_be_overridden() -> None:
    with pytest.raises(ConfigError, match=r"producer\.override\.acks cannot be set"):
        override_checked({"acks": "1"}, {"acks": "all"}, "producer.override.")


def test_the_clients_lines_are_stripped_and_repeats_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger=CLIENT_LOG.name):
        for milliseconds in range(5):
            CLIENT_LOG.log(
                logging.ERROR,
                "%s [%s] %s",
                "FAIL",
                "rdkafka#producer-9",
                f"[thrd:x]: x/1: Connect failed: refused (after {milliseconds}ms in state CONNECT)",
            )
    assert [record.getMessage() for record in caplog.records] == ["x/1: Connect failed: refused"]
