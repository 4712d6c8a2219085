"""A Kafka broker in KRaft mode, run straight from its jars; every broker is also a controller.

Defaults that differ from Kafka's are chosen for tests of faults: a dead broker is noticed in 3 seconds,
a group starts at once, topics are never made by accident, and with three brokers a write needs two of them.
Messages may be up to 64 MiB, so that wide rows meet the pipeline's own limits first.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cdc.errors import Failed, Unreachable
from cdc.local.broker_probe import BrokerProbe
from cdc.local.jars import cache_directory, kafka_jars
from cdc.local.java import find_java
from cdc.local.ports import LOOPBACK
from cdc.local.server import Command, last_words

_MEBIBYTE = 1024 * 1024
MESSAGE_BYTES = 64 * _MEBIBYTE

_SETTINGS: Mapping[str, str | int] = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "unclean.leader.election.enable": "false",
    "num.partitions": 3,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.num.partitions": 1,
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "broker.session.timeout.ms": 3000,
    "broker.heartbeat.interval.ms": 500,
    "replica.lag.time.max.ms": 5000,
    "message.max.bytes": MESSAGE_BYTES,
    "replica.fetch.max.bytes": MESSAGE_BYTES,
    "log.segment.bytes": 2 * MESSAGE_BYTES,
    "log.cleaner.dedupe.buffer.size": 8 * _MEBIBYTE,
    "log.cleaner.backoff.ms": 1000,
}

_LOGGING = """\
Configuration:
  Appenders:
    Console: {name: out, PatternLayout: {pattern: "%d %p %m (%c)%n"}}
  Loggers:
    Root: {level: WARN, AppenderRef: [{ref: out}]}
"""


@dataclass(frozen=True, slots=True)
class Broker:
    """Broker ``node`` (from 1) of a cluster.

    ``controllers`` has the controller port of every node: they are the voters of the metadata quorum.
    ``settings`` are added to, or replace, those above.
    """

    node: int
    port: int
    controllers: Mapping[int, int]
    cluster_id: str
    directory: Path
    log: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``broker-1`` and so on."""
        return f"broker-{self.node}"

    @property
    def address(self) -> str:
        """What a client gives as a bootstrap server."""
        return f"{LOOPBACK}:{self.port}"

    def prepare(self) -> None:
        """Write its configuration, and format its log directory if it is new."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "log4j2.yaml").write_text(_LOGGING, encoding="utf-8")
        lines = [f"{name}={value}\n" for name, value in self._settings().items()]
        self._configuration.write_text("".join(lines), encoding="utf-8")
        if (self.directory / "logs" / "meta.properties").exists():
            return
        tool = [
            "kafka.tools.StorageTool",
            "format",
            "-t",
            self.cluster_id,
            "-c",
            str(self._configuration),
        ]
        command = [*self._java("-XX:TieredStopAtLevel=1"), *tool, "--ignore-formatted"]
        answer = subprocess.run(
            command, cwd=self.directory, capture_output=True, text=True, check=False
        )
        if answer.returncode:
            raise Failed(
                f"{self.name} cannot be formatted: {last_words(answer.stdout + answer.stderr)}",
                f"look at the disk of {self.directory}",
            )

    def command(self) -> Command:
        """Its command line."""
        return Command(
            (
                *self._java("-Xms384m", "-Xmx384m", "-Xss512k"),
                "kafka.Kafka",
                str(self._configuration),
            ),
            self.directory,
            self.log,
            stop_signal=signal.SIGTERM,
            death_signal=signal.SIGKILL,
        )

    def check(self) -> None:
        """Return once the controller admits it and a consumer group can be served.

        The first group needs the offsets topic, and that needs every broker of a new cluster.
        Raises Unreachable before that.
        """
        try:
            with BrokerProbe(LOOPBACK, self.port) as probe:
                if self.node not in probe.brokers():
                    raise Unreachable(f"{self.name} is not admitted by the controller yet")
                coordinator = probe.coordinator("cdc-probe")
            with BrokerProbe(*coordinator) as probe:
                probe.describe_group("cdc-probe")
        except OSError as error:
            raise Unreachable(f"{self.name} does not answer yet: {error}") from error

    @property
    def _configuration(self) -> Path:
        return self.directory / "server.properties"

    def _java(self, *options: str) -> tuple[str, ...]:
        return (
            str(find_java()),
            *options,
            "-XX:+UseSerialGC",
            "-XX:-UsePerfData",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self.directory / 'log4j2.yaml'}",
            "-cp",
            f"{kafka_jars(cache_directory())}/*",
        )

    def _settings(self) -> dict[str, str | int]:
        replicas = len(self.controllers)
        in_sync = min(2, replicas)
        voters = ",".join(f"{node}@{LOOPBACK}:{port}" for node, port in self.controllers.items())
        client = f"PLAINTEXT://{self.address}"
        return {
            **_SETTINGS,
            "node.id": self.node,
            "controller.quorum.voters": voters,
            "listeners": f"{client},CONTROLLER://{LOOPBACK}:{self.controllers[self.node]}",
            "advertised.listeners": client,
            "log.dirs": str(self.directory / "logs"),
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": in_sync,
            **self.settings,
        }
