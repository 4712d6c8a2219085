"""What the demonstration shows: a line that moves for the stage at work, lines that stay for what is done.

Where standard output is no terminal every line is plain and comes once, the moving one every five seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_PLAIN_SECONDS = 5.0
_BAR = 20
"""Width of a progress bar."""


@dataclass(slots=True)
class Stage:
    """One stage: ``text`` says how it is now; ``done`` of ``total`` fills a bar, none when ``total`` is 0.

    ``watch`` is called before each drawing, from another thread, to bring these up to date.
    """

    name: str
    text: str = ""
    done: float = 0.0
    total: float = 0.0
    watch: Callable[[], None] = lambda: None
    notes: list[RenderableType] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def line(self, mark: RenderableType, *, whole: bool) -> Table:
        """Mark, name, time, bar, text; the text is cut at the line's end unless it is wanted ``whole``."""
        line = Table.grid(padding=(0, 1))
        line.add_column(min_width=1)
        line.add_column(min_width=8, style="bold")
        line.add_column(min_width=5, justify="right", style="dim")
        cells: list[RenderableType] = [mark, self.name, f"{self.seconds:.0f} s"]
        if self.total:
            line.add_column(min_width=_BAR)
            cells.append(ProgressBar(self.total, min(self.done, self.total), width=_BAR))
        line.add_column(no_wrap=not whole, overflow="fold" if whole else "ellipsis")
        line.add_row(*cells, self.text)
        return line

    def moving(self) -> Group:
        """The stage while it works, with its notes."""
        self.watch()
        return Group(self.line(self._spinner, whole=False), *self.notes)

    def ended(self, *, well: bool) -> Group:
        """The stage when it is over."""
        self.total = 0.0
        return Group(self.line(_mark(well), whole=True), *self.notes)


class Screen:
    """Stages, one after the other, and the checks that were made in them."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.failed: list[str] = []
        self._stage: Stage | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Show a stage while the block runs."""
        stage = self._stage = Stage(name)
        well = False
        try:
            with self._moving(stage):
                yield stage
            stage.watch()
            well = True
        finally:
            self._stage = None
            if self.console.is_terminal:
                self.console.print(stage.ended(well=well))
            elif well:
                self.console.print(
                    f"✔ {name}: {stage.text}  {stage.seconds:.0f} s",
                    soft_wrap=True,
                    highlight=False,
                )

    def note(self, text: str) -> None:
        """A line that stays, beneath the stage at work."""
        self._keep(Text("·", style="dim"), Text(text, style="dim"))

    def check(self, what: str, *, held: bool, found: str = "") -> None:
        """A line that stays: what had to hold, whether it did, and what was found."""
        if not held:
            self.failed.append(what)
        line = Text(what + (f": {found}" if found else ""), style="" if held else "red")
        self._keep(_mark(held), line)

    def _keep(self, mark: Text, line: Text) -> None:
        if self._stage is None or not self.console.is_terminal:
            self.console.print(Text("    ") + mark + Text(" ") + line, soft_wrap=True)
            return
        note = Table.grid(padding=(0, 1))  # a long line goes on below its own beginning
        note.add_column(width=2)
        note.add_column(width=1)
        note.add_column()
        note.add_row("", mark, line)
        self._stage.notes.append(note)

    @contextmanager
    def _moving(self, stage: Stage) -> Iterator[None]:
        if self.console.is_terminal:
            with Live(
                get_renderable=stage.moving,
                console=self.console,
                refresh_per_second=8,
                transient=True,
            ):
                yield
            return
        over = threading.Event()
        teller = threading.Thread(target=self._tell, args=(stage, over), daemon=True)
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join()

    def _tell(self, stage: Stage, over: threading.Event) -> None:
        told = ""
        while not over.wait(_PLAIN_SECONDS):
            stage.watch()
            part = f" {min(1.0, stage.done / stage.total):.0%}" if stage.total else ""
            line = f"… {stage.name}{part} {stage.text}"
            if line != told:
                self.console.print(line, soft_wrap=True, highlight=False)
            told = line


def _mark(well: bool) -> Text:  # noqa: FBT001 - the one thing it is told
    return Text("✔", style="green") if well else Text("✘", style="red")
