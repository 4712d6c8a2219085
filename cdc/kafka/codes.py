"""The client library's own error codes (those below zero), by names without an underscore.

Brokers' codes stand in `confluent_kafka.KafkaError` under public names.
"""
# ruff: noqa: SLF001 - the library marks its local codes with an underscore; they are documented and public

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

ALL_BROKERS_DOWN: Final[int] = KafkaError._ALL_BROKERS_DOWN
AUTHENTICATION: Final[int] = KafkaError._AUTHENTICATION
AUTO_OFFSET_RESET: Final[int] = KafkaError._AUTO_OFFSET_RESET
BAD_MESSAGE: Final[int] = KafkaError._BAD_MSG
FAIL: Final[int] = KafkaError._FAIL
FENCED: Final[int] = KafkaError._FENCED
INVALID_ARGUMENT: Final[int] = KafkaError._INVALID_ARG
NO_ENTRY: Final[int] = KafkaError._NOENT
PARTITION_EOF: Final[int] = KafkaError._PARTITION_EOF
UNKNOWN_PARTITION: Final[int] = KafkaError._UNKNOWN_PARTITION
UNKNOWN_TOPIC: Final[int] = KafkaError._UNKNOWN_TOPIC
