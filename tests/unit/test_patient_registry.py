"""A registry that is slow or away is waited for, and the log is kept alive all the while."""

from __future__ import annotations

import threading

import pytest

from cdc.errors import Refused, Unreachable
from cdc.runtime.patient_registry import PatientRegistry


class _Registry:
    """Answers what it is told to: an id, an error, or nothing until it is let go."""

    def __init__(self, *answers: int | Exception | threading.Event) -> None:
        self.answers = list(answers)

    def register(self, subject: str, schema: str) -> int:
        answer = self.answers.pop(0)
        if isinstance(answer, threading.Event):
            assert answer.wait(10)
            answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, int)
        return answer

    def schema(self, schema_id: int) -> str:
        return str(schema_id)


def test_a_slow_answer_is_waited_for_and_the_log_kept_alive() -> None:
    let_go = threading.Event()
    calls = []

    def while_waiting() -> None:
        calls.append(1)
        if len(calls) == 3:
            let_go.set()

    assert PatientRegistry(_Registry(let_go, 7), while_waiting).register("s", "{}") == 7
    assert len(calls) >= 3


def test_a_registry_that_is_away_is_asked_until_it_is_back() -> None:
    calls = []
    away = Unreachable("nobody answers")
    registry = PatientRegistry(_Registry(away, away, away, 7), lambda: calls.append(1))
    assert registry.register("s", "{}") == 7
    assert len(calls) > 3


def test_a_refusal_is_no_reason_to_wait() -> None:
    with pytest.raises(Refused):
        PatientRegistry(_Registry(Refused("no")), lambda: None).register("s", "{}")


def test_a_stop_ends_the_wait() -> None:
    def stopped() -> None:
        raise Unreachable("stopped")

    with pytest.raises(Unreachable, match="stopped"):
        PatientRegistry(_Registry(Unreachable("away"), 7), stopped).register("s", "{}")
