"""The story of the demonstration, stage by stage.

Servers, load, backfill, live traffic with two kills and a verification in it, the same comparisons at rest, three
corruptions planted, found, repaired. Every check is a line; the exit status is 0 only if every one held.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from cdc.errors import EXIT_FAILED, EXIT_OK
from cdc.local.cluster import Cluster
from deploy.flights.comparison import compare
from deploy.flights.corruption import named, plant
from deploy.flights.data import ROWS, TABLES
from deploy.flights.kills import kill
from deploy.flights.latency import Probe
from deploy.flights.load import count, load
from deploy.flights.pipeline import CDC, SINK_FILE, SOURCE_FILE, Pipeline
from deploy.flights.rates import Rates
from deploy.flights.replay import Replay
from deploy.flights.results import Results
from deploy.flights.screen import Screen, Stage
from deploy.flights.servers import folder_of_its_own, new_servers
from deploy.flights.traffic import Traffic

_BACKFILL_SECONDS = 300.0
_CATCH_UP_SECONDS = 180.0
_DIFF = 16


@dataclass(frozen=True, slots=True)
class Options:
    """``seconds`` of traffic at least, by ``writers`` sessions with ``rate`` transactions a second together."""

    folder: Path
    keep: bool
    seconds: float
    flights: int
    writers: int = 8
    rate: float = 320.0


class Demo:
    """One demonstration over a cluster that is up."""

    def __init__(self, cluster: Cluster, screen: Screen, options: Options) -> None:
        self.results = Results()
        self.pipeline = Pipeline(cluster)
        self._cluster = cluster
        self._screen = screen
        self._options = options
        self._meanwhile = ""

    def run(self) -> None:
        """All stages. Raises CdcError when one of them cannot go on; a check that fails is no error."""
        rows = self._load()
        self._backfill(rows)
        self._traffic(rows["flights"])
        self._at_rest()
        self._repair()

    def _load(self) -> dict[str, int]:
        with self._screen.stage("load") as stage:
            stage.total = sum({**ROWS, "flights": self._options.flights}.values())

            def on_rows(table: str, rows: int) -> None:
                stage.done += rows
                stage.text = f"{stage.done:,.0f} rows, {table}"

            loaded = load(self._cluster.source.dsn, self._options.flights, on_rows)
            stage.text = ", ".join(f"{loaded[table]:,} {table}" for table in reversed(TABLES))
        return loaded

    def _backfill(self, loaded: dict[str, int]) -> None:
        with self._screen.stage("backfill") as stage:
            rows = sum(loaded.values())
            stage.total = rows
            self.pipeline.start()

            def copied() -> bool:
                with psycopg.connect(self._cluster.replica.dsn) as connection:
                    stage.done = sum(count(connection).values())
                stage.text = f"{stage.done:,.0f} of {rows:,} rows in the replica"
                time.sleep(0.25)
                return self.pipeline.live_tables() == len(TABLES)

            self.pipeline.wait("the backfill's end", copied, _BACKFILL_SECONDS)
            self.pipeline.catch_up(_CATCH_UP_SECONDS)
            self.results.backfilled = rows
            self.results.backfill_seconds = stage.seconds
            stage.text = f"{rows:,} rows, {rows / stage.seconds:,.0f} a second from a cold start"

    def _traffic(self, last_year: int) -> None:
        source, replica = self._cluster.source.dsn, self._cluster.replica.dsn
        with self._screen.stage("traffic") as stage, ExitStack() as running:
            rates = running.enter_context(Rates(self.pipeline))
            probe = running.enter_context(Probe(source, replica))
            traffic = running.enter_context(
                Traffic(
                    source,
                    Replay(self._options.flights),
                    writers=self._options.writers,
                    rate=self._options.rate,
                    last_year=last_year,
                )
            )
            stage.total = self._options.seconds

            def watch() -> None:
                totals, seconds = traffic.totals, traffic.seconds
                stage.done = seconds
                stage.text = (
                    f"{totals.committed:,} transactions, {totals.committed / seconds:,.0f}/s;"
                    f" {totals.rows:,} rows, {totals.rows / seconds:,.0f}/s{self._meanwhile}"
                )

            stage.watch = watch
            self._disturb(traffic, probe)
            self._meanwhile = "; verifying"
            self._check_verified("verification while traffic runs", whole=False)
            self._meanwhile = ""
            self._let_pass(traffic, probe, self._options.seconds)
            probe.check()
            traffic.check()
            self.results.traffic = traffic.totals
            self.results.captured_per_s = rates.per_second("source")
            self.results.applied_per_s = rates.per_second("sink")
            self.results.samples = probe.samples

    def _disturb(self, traffic: Traffic, probe: Probe) -> None:
        """Kill each task once, with calm traffic before and between."""
        calm = self._options.seconds / 8
        for role, what in (("source", "capture"), ("sink", "the sink")):
            self._let_pass(traffic, probe, traffic.seconds + calm)
            self._meanwhile = f"; {what} was killed"
            killed = kill(self.pipeline, probe, role, what)
            self._meanwhile = ""
            self.results.kills.append(killed)
            self._screen.check(
                f"SIGKILL of {what} (pid {killed.pid})",
                held=True,
                found=f"the replica moved again after {killed.seconds:.1f} s",
            )
        self._let_pass(traffic, probe, traffic.seconds + calm)

    def _let_pass(self, traffic: Traffic, probe: Probe, until: float) -> None:
        while traffic.seconds < until:
            self.pipeline.check()
            traffic.check()
            probe.check()
            time.sleep(0.1)

    def _at_rest(self) -> None:
        with self._screen.stage("at rest") as stage:
            stage.text = "the replica catches up"
            self.pipeline.catch_up(_CATCH_UP_SECONDS)
            caught_up = stage.seconds
            stage.text = "comparing"
            self._check_verified("verification at rest", whole=True)
            self._check_compared("plain SQL, count and md5 of every table")
            stage.text = f"caught up {caught_up:.1f} s after the last commit"

    def _repair(self) -> None:
        with self._screen.stage("repair") as stage:
            planted = plant(self._cluster.replica.dsn)
            self.results.planted = len(planted)
            stage.text = "planted behind the pipeline's back; verifying"
            self._screen.note("planted in the replica: " + "; ".join(sorted(map(str, planted))))
            status, report = self.pipeline.verify()
            found = named(report)
            self.results.found = len(found)
            self._screen.check(
                "verification names exactly these three",
                held=status == _DIFF and found == planted,
                found=f"status {status}; " + ("; ".join(sorted(map(str, found))) or "nothing"),
            )
            stage.text = "repairing through the pipeline"
            status, report = self.pipeline.verify("--repair")
            repaired = named(report, "repaired")
            self.results.repaired = len(repaired)
            self._screen.check(
                "they are repaired through the pipeline",
                held=status == EXIT_OK and repaired == planted,
                found=f"status {status}; {len(repaired)} rows sent again",
            )
            report = self._check_verified("verification after the repair", whole=True)
            self.results.left = len(named(report))
            self.results.rows = self._check_compared("plain SQL after the repair")
            stage.text = f"{len(planted)} planted, {len(found)} found, {len(repaired)} repaired"

    def _check_verified(self, what: str, *, whole: bool) -> dict[str, Any]:
        """Run a verification: it must find every table OK, and with ``whole`` leave out no row."""
        status, report = self.pipeline.verify()
        reasons = [
            f"{table['table']} {table['verdict']} {table['reason']}".rstrip()
            for table in report["tables"]
            if table["verdict"] != "OK"
        ]
        self._screen.check(
            what,
            held=status == EXIT_OK
            and report["verdict"] == "OK"
            and len(report["tables"]) == len(TABLES)
            and (report["coverage"] == 1.0 or not whole),
            found="; ".join(
                [
                    (
                        f"{report['verdict']}, {report['rows_compared']:,} rows compared"
                        f" in {report['seconds']:.1f} s, coverage {report['coverage']:.1%}"
                    ),
                    *reasons,
                ]
            ),
        )
        return report

    def _check_compared(self, what: str) -> int:
        """Compare both databases without our own code; the rows of the source."""
        sums = compare(self._cluster.source.dsn, self._cluster.replica.dsn)
        wrong = [
            f"{table}: {source.rows:,} rows {source.md5[:8]}, replica {replica.rows:,} {replica.md5[:8]}"
            for table, (source, replica) in sums.items()
            if source != replica
        ]
        rows = sum(source.rows for source, _ in sums.values())
        self._screen.check(what, held=not wrong, found="; ".join(wrong) or f"equal, {rows:,} rows")
        return rows


def run(screen: Screen, options: Options) -> int:
    """Run a demonstration in servers of its own; the exit status."""
    with folder_of_its_own(options.folder) as folder:
        with _servers(screen, folder, keep=options.keep) as cluster:
            demo = Demo(cluster, screen, options)
            try:
                demo.run()
            except BaseException:
                demo.pipeline.abandon()
                raise
            if options.keep:
                demo.results.running = _addresses(cluster, demo.pipeline)
            else:
                with screen.stage("stop") as stage:
                    stage.text = "everything drains and ends"
                    demo.pipeline.stop()
        if not options.keep:
            demo.results.running = [("servers", f"all stopped, nothing left in {folder}")]
    demo.results.show(screen.console)
    for what in screen.failed:
        screen.console.print(f"[bold red]failed:[/] {what}", soft_wrap=True, highlight=False)
    return EXIT_FAILED if screen.failed else EXIT_OK


@contextmanager
def _servers(screen: Screen, folder: Path, *, keep: bool) -> Iterator[Cluster]:
    with ExitStack() as held:
        with screen.stage("servers") as stage:
            phases: dict[str, str] = {}

            def on_progress(name: str, phase: str) -> None:
                phases[name] = phase
                _tell_phases(stage, phases)

            stage.text = "clearing what an earlier run left"
            cluster = held.enter_context(new_servers(folder, keep=keep, progress=on_progress))
            stage.text = "two PostgreSQL servers, Kafka, schema registry"
        yield cluster


def _tell_phases(stage: Stage, phases: dict[str, str]) -> None:
    stage.text = ", ".join(f"{name} {phase}" for name, phase in sorted(phases.items()))


def _addresses(cluster: Cluster, pipeline: Pipeline) -> list[tuple[str, str]]:
    return [
        ("source", cluster.source.dsn),
        ("replica", cluster.replica.dsn),
        ("Kafka", cluster.bootstrap_servers),
        ("schema registry", cluster.schema_registry_url),
        ("pipeline's log", str(pipeline.log)),
        ("verify again", f". {pipeline.environment}; {CDC} verify run {SOURCE_FILE} {SINK_FILE}"),
        ("stop it all", f"{CDC} local down --purge --state-dir {cluster.state_dir}"),
    ]
