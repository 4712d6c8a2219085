"""A process is known by its pid and its start, and one that was killed ends with all below it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc.local.processes import Process, end, pause_tree, running_in, signal_tree, wait_gone

# A parent that ignores SIGTERM, with a child.
STUBBORN = (
    "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print('up', flush=True); time.sleep(60)"
)


@pytest.fixture
def parent() -> Iterator[Process]:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"up\n"
        process = Process.of(started.pid)
        assert process is not None
        yield process
        signal_tree(process, signal.SIGKILL)


def test_a_reused_pid_is_another_process_and_is_not_signalled(parent: Process) -> None:
    earlier = Process(parent.pid, parent.started - 1)
    assert not earlier.alive()
    earlier.signal(signal.SIGKILL)
    assert earlier.tree() == [earlier]
    assert parent.alive()


def test_a_zombie_does_not_run() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as started:
        deadline = time.monotonic() + 10
        while Process.of(started.pid) is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert started.returncode is None  # nobody has reaped it
        assert Process.of(started.pid) is None


def test_the_tree_is_signalled_and_counted_as_a_whole(parent: Process) -> None:
    pause_tree(parent)
    tree = parent.tree()
    assert len(tree) == 2
    assert all(member.paused() for member in tree)
    assert signal_tree(parent, signal.SIGCONT) == tree
    assert not any(member.paused() for member in tree)
    assert parent.memory() > 1024 * 1024


def test_the_end_kills_what_does_not_obey_even_when_paused(parent: Process) -> None:
    tree = parent.tree()
    pause_tree(parent)
    end(parent, signal.SIGTERM, grace=0.2)
    assert wait_gone(tree, 0)


def test_a_process_is_found_by_its_program_and_its_directory(tmp_path: Path) -> None:
    sleep = Path("/bin/sleep").resolve()
    with subprocess.Popen([sleep, "60"], cwd=tmp_path) as started:
        try:
            assert [found.pid for found in running_in(sleep, tmp_path)] == [started.pid]
            assert not running_in(sleep, tmp_path.parent)
            assert not running_in(Path(sys.executable).resolve(), tmp_path)
        finally:
            started.kill()
