"""Pipelines for scenario tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.scenario.pipeline import Pipeline

MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def make_pipeline(
    tmp_path: Path,
    source_dsn: str,
    replica_dsn: str,
    kafka: str,
    registry_url: str,
    prefix: str,
) -> Iterator[MakePipeline]:
    """Makes a pipeline over this test's databases, not started; it is killed at the end."""
    with ExitStack() as made:

        def make(**settings: Any) -> Pipeline:
            given: dict[str, Any] = {
                "source_dsn": source_dsn,
                "replica_dsn": replica_dsn,
                "kafka": kafka,
                "registry_url": registry_url,
                "prefix": prefix,
                **settings,
            }
            pipeline = Pipeline(tmp_path, **given)
            made.callback(pipeline.kill)
            return pipeline

        yield make


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of a randomised test: fixed by the test's name, printed, changed with CDC_SEED."""
    import os
    import zlib

    chosen = int(os.environ.get("CDC_SEED", zlib.crc32(request.node.name.encode()) % 10_000))
    print(f"seed {chosen} (repeat with CDC_SEED={chosen})")
    return chosen
