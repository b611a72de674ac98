"""How far a grid is: a live table on a terminal, a line for each fold that ends elsewhere."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.jobs import FoldJob, Outcomes

RUNNING, FINISHED, FAILED = "running", "finished", "failed"


class GridProgress:
    """A context manager; ``update`` it with what ended.

    histories: the file that gains a line with every epoch of a fold. skipped: folds that were finished before.
    """

    def __init__(self, histories: Mapping[FoldJob, Path], skipped: int, console: Console | None = None):
        self.histories = histories
        self.skipped = skipped
        self.console = console or Console(soft_wrap=True)
        self.began = time.monotonic()
        self.states: dict[FoldJob, str] = {}
        # a fold has begun when its log grows; logs of earlier calls may be there
        self._log_sizes = {job: _size(job.log) for job in histories}
        self._live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> "GridProgress":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def update(self, ended: Outcomes) -> None:
        for job, fault in ended:
            self.states[job] = FAILED if fault else FINISHED
            self.console.print(f"{self.summary()}: {job.name} {fault or 'finished'}", markup=False, highlight=False)
        if self.console.is_terminal:
            for job in self.histories:
                if job not in self.states and _size(job.log) != self._log_sizes[job]:
                    self.states[job] = RUNNING
            self._live.update(Group(self.table(), Text(self.summary())), refresh=True)

    def summary(self) -> str:
        states = list(self.states.values())
        finished, total = self.skipped + states.count(FINISHED), self.skipped + len(self.histories)
        failed = f", {states.count(FAILED)} failed" if FAILED in states else ""
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        return f"[{minutes}:{seconds:02d}] {finished} of {total} folds{failed}"

    def table(self) -> Table:
        """The folds that run, with the epochs they have behind them."""
        table = Table("running", "epochs", box=None)
        for job, state in self.states.items():
            if state == RUNNING:
                table.add_row(Text(job.name), str(epochs(self.histories[job])))
        return table


def epochs(history: Path) -> int:
    """Epochs that a fold's history tells of: lines but for the header."""
    try:
        return max(0, len(history.read_text(encoding="utf-8").splitlines()) - 1)
    except FileNotFoundError:
        return 0


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
