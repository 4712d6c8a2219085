"""Translates the Kafka client's errors, once, into what happens next."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException

from cdc.errors import CdcError, ConfigError, Failed, Fenced, Refused, Unreachable
from cdc.kafka import codes

_GRANT = "grant it to the user of the connection, or correct the user"

_KINDS: Mapping[int, tuple[type[CdcError], str]] = {
    codes.AUTHENTICATION: (ConfigError, "check user, password and mechanism"),
    KafkaError.SASL_AUTHENTICATION_FAILED: (ConfigError, "check user, password and mechanism"),
    KafkaError.UNSUPPORTED_SASL_MECHANISM: (
        ConfigError,
        "choose a mechanism that the brokers offer",
    ),
    codes.INVALID_ARGUMENT: (ConfigError, "correct the setting"),
    KafkaError.TOPIC_AUTHORIZATION_FAILED: (ConfigError, _GRANT),
    KafkaError.GROUP_AUTHORIZATION_FAILED: (ConfigError, _GRANT),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: (ConfigError, _GRANT),
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (ConfigError, _GRANT),
    KafkaError.MSG_SIZE_TOO_LARGE: (
        Refused,
        "raise max.message.bytes of the topic and message.max.bytes of the client, or leave out the wide column",
    ),
    KafkaError.INVALID_MSG: (Refused, "the brokers will never take this record"),
    KafkaError.INVALID_RECORD: (
        Refused,
        "the brokers will never take this record; check the topic's cleanup.policy",
    ),
    KafkaError.UNKNOWN_TOPIC_OR_PART: (
        Refused,
        "the topic was deleted or lost partitions: restore it, or rewind the checkpoint and backfill",
    ),
    codes.UNKNOWN_TOPIC: (
        Refused,
        "the topic was deleted: restore it, or rewind the checkpoint and backfill",
    ),
    codes.UNKNOWN_PARTITION: (
        Refused,
        "the topic has fewer partitions than it had: restore it, or rewind the checkpoint and backfill",
    ),
    KafkaError.OFFSET_OUT_OF_RANGE: (
        Refused,
        "retention has passed it or the topic was made anew: backfill its table",
    ),
    codes.AUTO_OFFSET_RESET: (
        Refused,
        "retention has passed it or the topic was made anew: backfill its table",
    ),
    codes.BAD_MESSAGE: (
        Refused,
        "the stored record is damaged: restore the partition from another replica",
    ),
    codes.FENCED: (Fenced, "another process runs this connector now"),
    KafkaError.PRODUCER_FENCED: (Fenced, "another process runs this connector now"),
    KafkaError.INVALID_PRODUCER_EPOCH: (Fenced, "another process runs this connector now"),
    KafkaError.INVALID_REPLICATION_FACTOR: (
        Failed,
        "the cluster has fewer brokers than the topic wants copies",
    ),
    KafkaError.INVALID_CONFIG: (ConfigError, "correct topic.creation.*"),
    KafkaError.POLICY_VIOLATION: (
        Failed,
        "make the topic by hand, as the cluster's policy wants it",
    ),
    KafkaError.UNSUPPORTED_VERSION: (
        Failed,
        "the brokers are too old: Kafka 2.5 or newer is needed",
    ),
}


def translate(error: KafkaError | KafkaException, doing: str) -> CdcError:
    """The error to raise for what failed while ``doing`` (a phrase: ``writing to orders[3]``).

    What is not known to be final is Unreachable: another attempt is harmless, because progress is only recorded
    after acknowledgements.
    """
    cause = reason(error)
    kind, remedy = _KINDS.get(
        cause.code(), (Unreachable, "it is tried again; check that the brokers are up")
    )
    return kind(f"{doing}: {cause.str()} ({cause.name()})", remedy)


def reason(error: KafkaError | KafkaException) -> KafkaError:
    """The client's own error inside its exception."""
    if isinstance(error, KafkaError):
        return error
    first = error.args[0] if error.args else None
    if isinstance(first, KafkaError):
        return first
    return KafkaError(codes.FAIL, str(error))
