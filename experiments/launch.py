"""Runs a grid: its runs as folds, its folds as processes, and what they leave behind."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from experiments.grid import GridRun, Rows, expand, read_grid, read_presets, replaced_by_rows
from experiments.jobs import NO_GPU, FoldJob, Outcomes, gpu_shares, last_lines, on_ray, on_this_machine
from experiments.progress import GridProgress
from utils.commands import paths_text
from utils.config import PROJECT, Config
from utils.errors import Fault, Faults, UserError
from utils.files import write_json
from utils.listed_runs import EXPERIMENT, read_experiment
from utils.outputs import check_outputs
from utils.words import listed

LINES_OF_A_LOG = 12
SECONDS_OF_A_SHARED_FOLDER = 60  # until files written by another node are seen here


class Files(Protocol):
    """What training leaves of a fold."""

    @property
    def history(self) -> Path: ...


class Folder(Protocol):
    """A run's folder, as far as a grid looks at it; training/run_folder.py has it."""

    path: Path

    def fold_result(self, fold: int) -> Path: ...

    def training(self, fold: int) -> Files: ...

    def finished(self, fold: int) -> object | None: ...

    def lock(self, name: str, wait: bool = False) -> AbstractContextManager[None]: ...

    def summarise(self, folds: Sequence[int], num_folds: int) -> object: ...


FolderOf = Callable[[Path], Folder]
CheckFiles = Callable[[Config], None]


@dataclass(frozen=True)
class GridFold:
    """A fold of one of the grid's folders."""

    folder: Folder
    number: int
    job: FoldJob

    @property
    def result(self) -> Path:
        return self.folder.fold_result(self.number)


def launch(
    options: argparse.Namespace, given: Mapping[str, list[str]], folder_of: FolderOf, check_files: CheckFiles
) -> bool:
    """Run a grid's folds that are not finished, and write the tables of complete runs.

    options: as run_experiments.py parses them. given: options of main.py, each with its values. folder_of: the path of
    a run -> its folder. check_files: raises UserError where a run's table of slides, splits or descriptions are missing
    or faulty; a dry run tells these faults. Returns whether all folds are finished, or were only listed. Raises
    UserError for faults of the grid, for results that are damaged, and where the results of folds that ended well
    cannot be seen here.
    """
    results = Path(options.results_dir)
    runs = runs_of_grid(options, given)
    folds = list_folds(runs, int(os.environ.get("OMP_NUM_THREADS") or options.cpus_per_fold), folder_of)
    left = unfinished(folds)
    print(f"{len(runs)} runs, {len(folds)} folds, {len(folds) - len(left)} of them finished")
    if options.dry_run:
        for fold in folds:
            print(f"{'waiting' if fold in left else 'finished'}  {fold.job.name}")
            print(f"  python {shlex.join(fold.job.command)}")
        tell_of_files(runs, check_files)
        return True
    check_outputs(f"--results_dir {results}", [results / EXPERIMENT], [options.grid])
    with folder_of(results).lock("experiment", wait=True):
        write_record(results, runs)
    faults = finish_folds(options, left, len(folds) - len(left)) if left else {}
    done = [fold for fold in left if fold.job not in faults]
    if not seen([fold.result for fold in done], SECONDS_OF_A_SHARED_FOLDER):
        unseen = ", ".join(str(fold.result) for fold in done if not fold.result.exists())
        expected = "--results_dir to be a folder that all nodes of the cluster share"
        found = "not to be seen here, though the folds ended well"
        raise UserError(Fault("results.not_shared", unseen, found, expected))
    summarise(folds)
    if faults:
        report(faults)
        return False
    print(f"results in {results}; python report_results.py {paths_text([results])} makes tables of them")
    return True


def runs_of_grid(options: argparse.Namespace, given: Mapping[str, list[str]]) -> list[GridRun]:
    """The runs of the grid; what the command line gives takes the place of what the grid file gives."""
    in_file, presets, rows = read_grid(options.grid) if options.grid else ({}, [], None)
    tables = read_presets(options.preset or presets) + ([rows] if rows else [])
    values = {**in_file, **given}
    for note in replaced_by_rows(values, tables):
        print(f"note: {note}")
    return expand(values, tables or [Rows({"": {}})], Path(options.results_dir))


def tell_of_files(runs: Iterable[GridRun], check_files: CheckFiles) -> None:
    """Print what is wrong with the files of the runs, each fault once, with the rows that it stops."""
    stopped: dict[Fault, dict[str, None]] = {}
    for run in runs:
        faults = Faults()
        faults.attempt(check_files, run.config)
        for fault in faults.found:
            stopped.setdefault(fault, {})[run.label] = None
    if stopped:
        print(f"{len(stopped)} faults of files would stop these folds; main.py --dry_run checks a run's features too")
    for fault, labels in stopped.items():
        rows = f" (of {listed(list(labels), 3, quote=False)})" if any(labels) else ""
        print(f"  - {fault}{rows}")


def list_folds(runs: Iterable[GridRun], threads: int, folder_of: FolderOf) -> list[GridFold]:
    """Every fold of every folder, once: rows of two tables may be the same run."""
    here = Path.cwd()
    first_of: dict[Config, GridRun] = {}
    for run in runs:
        first_of.setdefault(run.config, run)
    folds = []
    for config, run in first_of.items():
        folder = folder_of(config.run_path())
        for number in range(config.k):
            options = [*run.argv(), "--resume", f"--k_start={number}", f"--k_end={number + 1}"]
            job = FoldJob(
                name=f"{run.label}: {folder.path.name} fold {number}",
                command=(str(PROJECT / "main.py"), *options),
                folder=here,
                log=here / folder.path / "logs" / f"fold_{number}.log",
                threads=threads,
            )
            folds.append(GridFold(folder, number, job))
    return folds


def unfinished(folds: Iterable[GridFold]) -> list[GridFold]:
    """The folds without a result. Raises UserError with every result that is damaged, or of another fold or run."""
    faults = Faults()
    results = [(fold, faults.attempt(fold.folder.finished, fold.number)) for fold in folds]
    faults.raise_any()
    return [fold for fold, result in results if result.value is None]


def write_record(results: Path, runs: Iterable[GridRun]) -> None:
    """Add the runs to RESULTS/experiment.json, behind those of other grids."""
    file = results / EXPERIMENT
    listed = read_experiment(file)
    new = [record for run in runs if (record := run.record(results)) not in listed]
    write_json(file, {"runs": listed + new})


def finish_folds(options: argparse.Namespace, left: Sequence[GridFold], skipped: int) -> dict[FoldJob, str]:
    """Run folds to their end and show how far they are; returns why some failed. skipped: folds finished before."""
    histories = {fold.job: fold.folder.training(fold.number).history for fold in left}
    faults: dict[FoldJob, str] = {}
    try:
        with (
            GridProgress(histories, skipped) as progress,
            closing(start_jobs(options, list(histories))) as stream,
        ):
            for ended in stream:
                progress.update(ended)
                faults |= {job: fault for job, fault in ended if fault}
    except KeyboardInterrupt:
        print("finished folds and epochs are kept: the same command goes on behind them", file=sys.stderr)
        raise
    return faults


def start_jobs(options: argparse.Namespace, jobs: Sequence[FoldJob]) -> Generator[Outcomes, None, None]:
    if options.local:
        return on_this_machine(jobs, local_shares(options), options.retries)
    return on_ray(
        jobs, options.cpus_per_fold, options.gpus_per_fold, options.retries, options.address, options.jobs
    )  # fmt: skip


def local_shares(options: argparse.Namespace) -> list[dict[str, str]]:
    """Environment variables for each of the folds that run at a time on this machine."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = options.jobs or max(1, cores // options.cpus_per_fold)
    count = torch.cuda.device_count()
    gpus_per_fold = min(1, count) if options.gpus_per_fold is None else options.gpus_per_fold
    if gpus_per_fold == 0:
        return [NO_GPU] * jobs
    if gpus_per_fold > count:
        found = f"found {count} GPUs on this machine"
        raise UserError(Fault("grid.resources", f"--gpus_per_fold {gpus_per_fold:g}", found))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    shares = gpu_shares(visible.split(",")[:count], gpus_per_fold)
    return [{"CUDA_VISIBLE_DEVICES": share} for share in shares[:jobs]]


def seen(files: Iterable[Path], seconds: float) -> bool:
    """Whether all files are there, now or soon."""
    deadline = time.monotonic() + seconds
    while missing := [file for file in files if not file.exists()]:
        if time.monotonic() > deadline:
            return False
        files = missing
        time.sleep(1)
    return True


def summarise(folds: Iterable[GridFold]) -> None:
    """Write the tables of complete runs that lack them: the process that should have may have been lost, or have seen
    the other folds' results too late."""
    by_folder: dict[Path, list[GridFold]] = {}
    for fold in folds:
        by_folder.setdefault(fold.folder.path, []).append(fold)
    for path, members in by_folder.items():
        table = path / "results.csv"
        results = [fold.result for fold in members if fold.result.exists()]
        if len(results) < len(members):
            continue
        if not table.exists() or table.stat().st_mtime < max(file.stat().st_mtime for file in results):
            members[0].folder.summarise([fold.number for fold in members], len(members))


def report(faults: Mapping[FoldJob, str]) -> None:
    """Tell why folds failed; those whose logs end alike together."""
    alike: dict[tuple[str, ...], list[FoldJob]] = {}
    for job, fault in faults.items():
        alike.setdefault((fault, *last_lines(job.log, LINES_OF_A_LOG)), []).append(job)
    print(f"\n{len(faults)} folds failed", file=sys.stderr)
    for (fault, *lines), jobs in alike.items():
        print("\n" + "\n".join(job.name for job in jobs), file=sys.stderr)
        print("\n".join([f"  {fault}; the end of {jobs[0].log}:", *(f"    {line}" for line in lines)]), file=sys.stderr)
