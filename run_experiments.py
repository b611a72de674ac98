"""Run grids of main.py: every fold is a process of its own, on Ray or, with --local, without it. Finished folds are
skipped, lost ones started again."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.grid import OWN, Rows, Run, expand, read_grid, read_presets, replaced_by_rows
from experiments.jobs import NO_GPU, FoldJob, Outcomes, gpu_shares, last_lines, on_ray, on_this_machine
from experiments.progress import GridProgress
from utils.config import PROJECT, Config, at_least, flag
from utils.errors import UserError, run_script

if TYPE_CHECKING:
    from training.run_folder import RunFolder

LINES_OF_A_LOG = 12
SECONDS_OF_A_SHARED_FOLDER = 60  # until files written by another node are seen here


@dataclass(frozen=True)
class Fold:
    """A fold of one of the grid's folders."""

    folder: "RunFolder"
    number: int
    job: FoldJob

    @property
    def result(self) -> Path:
        return self.folder.fold_result(self.number)


def gpu_share(text: str) -> float:
    """An argparse type: a part of a GPU, or whole ones."""
    value = float(text)
    if not (0 <= value <= 1 or (value > 1 and value.is_integer())):
        raise argparse.ArgumentTypeError(f"{text}: expected a part of a GPU (0.25), or whole ones")
    return value


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, list[str]]]:
    """The script's own options, and those of main.py that were given, each with its values."""
    parser = argparse.ArgumentParser(
        usage="run_experiments.py [--grid FILE] [--preset NAME ...] [options] [options of main.py with their values]",
        description=__doc__,
        allow_abbrev=False,
    )

    def add(group: Any, name: str, text: str, **settings: Any) -> None:
        spellings = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
        group.add_argument(*spellings, dest=name, help=text.replace("%", "%%"), **settings)

    whole: dict[str, Any] = {"type": at_least(1), "metavar": "N"}
    add(parser, "grid", "YAML file: options of main.py with their values; preset; runs", type=Path, metavar="FILE")
    add(parser, "preset", "tables and figures of experiments/presets.yaml", nargs="+", metavar="NAME")
    add(parser, "results_dir", "where runs are written (default: ./results)", default="results", metavar="DIR")
    add(parser, "dry_run", "list the folds, their state and their commands, and stop", action="store_true")
    add(parser, "local", "subprocesses on this machine, without Ray", action="store_true")
    add(parser, "jobs", "folds at a time on this machine (default: as many as fit)", **whole)
    add(parser, "address", "a running Ray cluster (auto, or HOST:PORT) in place of this machine", metavar="ADDRESS")
    add(parser, "cpus_per_fold", "CPUs, and threads of PyTorch (default: 1)", default=1, **whole)
    add(parser, "gpus_per_fold", "GPUs, or part of one (default: 1 where there are any)", type=gpu_share, metavar="N")
    add(parser, "retries", "times to start a lost fold again (default: 2)", type=at_least(0), default=2, metavar="N")
    of_main = parser.add_argument_group("options of main.py, each with one or several values")
    for item in fields(Config):
        if item.name not in OWN:
            nargs = "*" if item.metadata["kind"] is flag else "+"
            add(of_main, item.name, item.metadata["help"], nargs=nargs, default=argparse.SUPPRESS, metavar="VALUE")
    options = parser.parse_args(argv)
    if options.address and (options.local or options.jobs):
        parser.error("--address names a cluster; --local and --jobs are for this machine")
    known = {item.name for item in fields(Config)} - OWN
    given = {name: values or ["True"] for name, values in vars(options).items() if name in known}
    return options, given


def read_runs(options: argparse.Namespace, given: Mapping[str, list[str]]) -> list[Run]:
    """The runs of the grid; what the command line gives takes the place of what the grid file gives."""
    in_file, presets, rows = read_grid(options.grid) if options.grid else ({}, [], None)
    tables = read_presets(options.preset or presets) + ([rows] if rows else [])
    values = {**in_file, **given}
    for note in replaced_by_rows(values, tables):
        print(f"note: {note}")
    from models.build import options_without_effect

    return expand(values, tables or [Rows({"": {}})], Path(options.results_dir), options_without_effect)


def list_folds(runs: Iterable[Run], threads: int) -> list[Fold]:
    """Every fold of every folder, once: rows of two tables may be the same run."""
    from training.run_folder import RunFolder

    here = Path.cwd()
    first_of: dict[Config, Run] = {}
    for run in runs:
        first_of.setdefault(run.config, run)
    folds = []
    for config, run in first_of.items():
        folder = RunFolder(config.run_path())
        for number in range(config.k):
            options = [*run.argv(), "--resume", f"--k_start={number}", f"--k_end={number + 1}"]
            job = FoldJob(
                name=f"{run.label}: {folder.path.name} fold {number}",
                command=(str(PROJECT / "main.py"), *options),
                folder=here,
                log=here / folder.path / "logs" / f"fold_{number}.log",
                threads=threads,
            )
            folds.append(Fold(folder, number, job))
    return folds


def write_record(results: Path, runs: Iterable[Run]) -> None:
    """Add the runs to RESULTS/experiment.json, behind those of other grids."""
    from training.run_folder import RunFolder
    from utils.files import read_json, write_json

    file = results / "experiment.json"
    with RunFolder(results).lock("experiment", wait=True):
        listed = read_json(file)["runs"] if file.exists() else []
        new = [record for run in runs if (record := run.record(results)) not in listed]
        write_json(file, {"runs": listed + new})


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
        raise UserError(f"--gpus_per_fold {gpus_per_fold:g}: found {count} GPUs on this machine")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    shares = gpu_shares(visible.split(",")[:count], gpus_per_fold)
    return [{"CUDA_VISIBLE_DEVICES": share} for share in shares[:jobs]]


def run_jobs(options: argparse.Namespace, jobs: Sequence[FoldJob]) -> Generator[Outcomes, None, None]:
    if options.local:
        return on_this_machine(jobs, local_shares(options), options.retries)
    return on_ray(
        jobs, options.cpus_per_fold, options.gpus_per_fold, options.retries, options.address, options.jobs
    )  # fmt: skip


def seen(files: Iterable[Path], seconds: float) -> bool:
    """Whether all files are there, now or soon."""
    deadline = time.monotonic() + seconds
    while missing := [file for file in files if not file.exists()]:
        if time.monotonic() > deadline:
            return False
        files = missing
        time.sleep(1)
    return True


def summarise(folds: Iterable[Fold]) -> None:
    """Write the tables of complete runs that lack them: the process that should have may have been lost, or have seen
    the other folds' results too late."""
    by_folder: dict[Path, list[Fold]] = {}
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


def main(argv: Sequence[str] | None = None) -> None:
    options, given = parse(argv)
    runs = read_runs(options, given)
    threads = int(os.environ.get("OMP_NUM_THREADS") or options.cpus_per_fold)
    folds = list_folds(runs, threads)
    left = [fold for fold in folds if not fold.result.exists()]
    print(f"{len(runs)} runs, {len(folds)} folds, {len(folds) - len(left)} of them finished")
    if options.dry_run:
        for fold in folds:
            print(f"{'waiting' if fold in left else 'finished'}  {fold.job.name}")
            print(f"  python {shlex.join(fold.job.command)}")
        return
    write_record(Path(options.results_dir), runs)
    faults: dict[FoldJob, str] = {}
    if left:
        histories = {fold.job: fold.folder.training(fold.number).history for fold in left}
        try:
            with (
                GridProgress(histories, len(folds) - len(left)) as progress,
                closing(run_jobs(options, list(histories))) as stream,
            ):
                for ended in stream:
                    progress.update(ended)
                    faults |= {job: fault for job, fault in ended if fault}
        except KeyboardInterrupt:
            print("finished folds and epochs are kept: the same command goes on behind them", file=sys.stderr)
            raise
    done = [fold for fold in left if fold.job not in faults]
    if not seen([fold.result for fold in done], SECONDS_OF_A_SHARED_FOLDER):
        unseen = ", ".join(str(fold.result) for fold in done if not fold.result.exists())
        raise UserError(
            f"{unseen}: not to be seen here, though the folds ended well; --results_dir must be a folder that all "
            "nodes of the cluster share"
        )
    summarise(folds)
    if faults:
        report(faults)
        sys.exit(1)
    print(f"results in {options.results_dir}; python report_results.py {options.results_dir} makes tables of them")


if __name__ == "__main__":
    sys.exit(run_script(main))
