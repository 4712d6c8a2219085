from __future__ import annotations

import pytest

from cdc.avro.dead_letter import DeadLetters
from cdc.errors import Rejected
from cdc.event import DeadLetter, Record
from cdc.position import Position
from cdc.testing.registry import MemoryRegistry


@pytest.mark.parametrize("position", [None, Position(3, 88, 7)])
@pytest.mark.parametrize("value", [None, b"", b"\x00\xff"])
def test_a_dead_letter_holds_the_record_byte_for_byte(
    position: Position | None, value: bytes | None
) -> None:
    record = Record("shop.public.t", 2, b"\x00k", value, (("a", b"\xff"), ("a", b"")), 42)
    letter = DeadLetter("replica", record, position, "Rejected", "why", "what to do", 17)
    letters = DeadLetters(topic="shop.deadletter", registry=MemoryRegistry())
    sent = letters.record(letter)
    assert (sent.topic, sent.key) == ("shop.deadletter", record.key)
    assert letters.letter(sent) == letter


def test_what_is_no_dead_letter_is_rejected() -> None:
    letters = DeadLetters(topic="d", registry=MemoryRegistry())
    whole = letters.record(DeadLetter("s", Record("t", 0, None, None), None, "k", "m", "", 1))
    assert whole.value is not None
    for value in (
        None,
        b"",
        b"{}",
        b"\x00\x00\x00\x00\x09",
        whole.value[:-3],
        b"\x01" + whole.value,
    ):
        with pytest.raises(Rejected):
            letters.letter(whole._replace(value=value))
