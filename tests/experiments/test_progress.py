"""What is shown of a grid: lines without a terminal, a table of what runs on one."""

import io
from pathlib import Path

from rich.console import Console

from experiments.jobs import FoldJob
from experiments.progress import GridProgress, epochs


def jobs_in(folder: Path) -> dict[FoldJob, Path]:
    """Three folds; the log of the first is there from an earlier call."""
    jobs = {FoldJob(f"fold [{n}]", (), folder, folder / f"{n}.log", 1): folder / f"history_{n}.csv" for n in range(3)}
    next(iter(jobs)).log.write_text("earlier\n")
    return jobs


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def output(of: Console) -> str:
    assert isinstance(of.file, io.StringIO)
    return of.file.getvalue()


def test_a_line_for_each_fold_that_ends(tmp_path: Path) -> None:
    jobs, to = jobs_in(tmp_path), console(terminal=False)
    first, second, _ = jobs
    with GridProgress(jobs, 4, to) as progress:
        progress.update([])
        progress.update([(first, ""), (second, "exit code 2")])
    assert output(to).splitlines() == [
        "[0:00] 5 of 7 folds: fold [0] finished",
        "[0:00] 5 of 7 folds, 1 failed: fold [1] exit code 2",
    ]


def test_the_table_holds_what_runs(tmp_path: Path) -> None:
    jobs, to = jobs_in(tmp_path), console(terminal=True)
    first, second, _ = jobs
    with GridProgress(jobs, 0, to) as progress:
        progress.update([])
        assert "fold [" not in output(to)  # no log has grown
        first.log.write_text("earlier\n$ python main.py\n")
        jobs[first].write_text("epoch,loss\n0,1.5\n1,1.4\n")
        second.log.write_text("$ python main.py\n")
        progress.update([])
        shown = output(to)
        lines = [line.split() for line in shown.splitlines() if "fold [" in line]
        assert lines == [["fold", "[0]", "2"], ["fold", "[1]", "0"]]
        progress.update([(first, "")])
        later = output(to)[len(shown) :]
        assert "1 of 3 folds: fold [0] finished" in later and "fold [1] " in later.split("epochs")[-1]
        assert "fold [0] " not in later.split("epochs")[-1]


def test_epochs(tmp_path: Path) -> None:
    history = tmp_path / "history.csv"
    assert epochs(history) == 0
    history.write_text("")
    assert epochs(history) == 0
    history.write_text("epoch,loss\n0,1\n")
    assert epochs(history) == 1
