"""A schema registry that may be away: capture waits for it, and the source's log is kept alive meanwhile.

A question to the registry blocks for as long as its HTTP timeouts last. It is asked in a thread, so that the server at
the other end of the replication stream hears from us all the while and never gives us up (``wal_sender_timeout``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from cdc.errors import Unreachable
from cdc.pipeline.retry import Backoff
from cdc.protocols import SchemaRegistry

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOOK_SECONDS = 0.1


class PatientRegistry:
    """`cdc.protocols.SchemaRegistry` over another one.

    ``while_waiting`` is called ten times a second from every wait; what it raises ends the wait. Unreachable never
    leaves here otherwise: the question is asked again, after growing pauses, until somebody answers. ``trouble`` says
    meanwhile why it waits; it is empty otherwise.
    """

    def __init__(self, registry: SchemaRegistry, while_waiting: Callable[[], None]) -> None:
        self._registry = registry
        self._while_waiting = while_waiting
        self.trouble = ""

    def register(self, subject: str, schema: str) -> int:
        """The id of this schema under the subject; Refused where the subject's compatibility rule forbids it."""
        return self._answer(lambda: self._registry.register(subject, schema))

    def schema(self, schema_id: int) -> str:
        """The schema with this id; Rejected when there is none."""
        return self._answer(lambda: self._registry.schema(schema_id))

    def _answer(self, ask: Callable[[], T]) -> T:
        backoff = Backoff(most=5.0)
        while True:
            try:
                answer = _Question(ask).wait(self._while_waiting)
            except Unreachable as error:
                if not self.trouble:
                    log.warning("waiting: %s", error)
                self.trouble = error.what
                backoff.pause(self._never)
            else:
                if self.trouble:
                    log.warning("going on: the schema registry is back")
                self.trouble = ""
                return answer

    def _never(self) -> bool:
        self._while_waiting()
        return False


class _Question(Generic[T]):
    """One question, asked in a thread of its own; a thread whose answer nobody waits for any more ends with it."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._answer: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="schema-registry", daemon=True)
        self._thread.start()

    def wait(self, while_waiting: Callable[[], None]) -> T:
        """The answer, or what asking raised."""
        self._thread.join(_LOOK_SECONDS)
        while self._thread.is_alive():
            while_waiting()
            self._thread.join(_LOOK_SECONDS)
        if self._error is not None:
            raise self._error
        return self._answer[0]

    def _run(self) -> None:
        try:
            self._answer.append(self._ask())
        except BaseException as error:  # noqa: BLE001 - carried to the thread that waits for it, and raised there
            self._error = error
