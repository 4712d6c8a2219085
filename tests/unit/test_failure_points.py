from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cdc import failure_points
from cdc.errors import Unreachable
from cdc.failure_points import arm, reach


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("")


def test_only_the_named_point_fails_and_only_the_nth_time() -> None:
    arm("here:2:raise")
    reach("there")
    reach("here")
    with pytest.raises(Unreachable, match="here"):
        reach("here")
    reach("here")


def test_the_environment_arms_a_kill() -> None:
    code = "from cdc.failure_points import reach; reach('here'); print('lived')"
    environment = {**os.environ, failure_points.VARIABLE: "here"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""


def test_an_unreadable_variable_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected name"):
        arm("here:sometimes")
