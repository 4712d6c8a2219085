"""Named places between two steps at which a test may stop this process, or fail the step.

``CDC_FAILURE_POINT=name[:nth][:kill|raise]`` arms one of them before the process starts; nothing else does, and a
point that is not armed costs one comparison. ``nth`` counts from 1 (the default); ``kill`` (the default) is SIGKILL;
``raise`` raises Unreachable, as a server that goes away at this moment would.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Literal, NamedTuple

from cdc.errors import Unreachable

VARIABLE = "CDC_FAILURE_POINT"


class _Armed(NamedTuple):
    name: str
    nth: int
    action: Literal["kill", "raise"]


class _State:
    armed: _Armed | None = None
    reached = 0


def arm(text: str) -> None:
    """Arm the point that ``text`` (the variable's form) names, and no other. Empty disarms. ValueError if unreadable."""
    _State.reached = 0
    _State.armed = None
    if not text:
        return
    name, *rest = text.split(":")
    nth, action = 1, "kill"
    for part in rest:
        if part.isdigit() and int(part) > 0:
            nth = int(part)
        elif part in ("kill", "raise"):
            action = part
        else:
            raise ValueError(f"{VARIABLE}={text}: expected name[:nth][:kill|raise]")
    _State.armed = _Armed(name, nth, "raise" if action == "raise" else "kill")


def arm_from(environment: Mapping[str, str]) -> None:
    """Arm what the environment asks for."""
    arm(environment.get(VARIABLE, ""))


def reach(name: str) -> None:
    """The process stands at this point; returns unless the point is armed and this is the nth time."""
    armed = _State.armed
    if armed is None or armed.name != name:
        return
    _State.reached += 1
    if _State.reached != armed.nth:
        return
    if armed.action == "raise":
        raise Unreachable(f"failure point {name} was reached")
    os.kill(os.getpid(), signal.SIGKILL)


arm_from(os.environ)
