"""The folder of a run: what main.py writes into it, and when. training/run_reader.py reads it."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import pandas as pd

from training.fold_result import FoldRecord, FoldResult
from training.metrics import GRAPH_COLUMNS, RESULT_COLUMNS
from training.run_reader import RunReader
from training.run_record import RunRecord
from utils.effects import CIRCUMSTANCES
from utils.errors import Fault, UserError
from utils.files import file_sha256, write_text
from utils.locks import LockedError, locked
from utils.sealed import write_sealed
from utils.spreadsheets import csv_text
from utils.words import listed


class RunFolder(RunReader):
    """The folder of a run as main.py writes it."""

    @contextmanager
    def lock(self, name: str, wait: bool = False) -> Iterator[None]:
        """Keep other processes from the same part of the run: wait for them, or raise UserError."""
        try:
            with locked(self.path / f".lock_{name}", wait):
                yield
        except LockedError as error:
            found = f"another process is at work on {name} of this run"
            raise UserError(Fault("run.locked", str(self.path), found, mend=error.remedy)) from error

    def open(self, record: RunRecord, without_effect: Collection[str] = ()) -> RunRecord:
        """Write config.json, or check that the run there is the same one. Returns what config.json holds now.

        without_effect: options that the run's model does not read, so that they may differ. Raises UserError when the
        folder holds another run.
        """
        if self.config.exists():
            there = self.record()
            differences = _differences(there, record, without_effect)
            if differences:
                raise UserError(
                    Fault(
                        "run.other_settings", str(self.path),
                        f"holds a run with other settings ({'; '.join(differences)})",
                        mend="name another --results_dir, or move that folder away. Nothing was changed",
                    )
                )  # fmt: skip
            if set(record.inputs) <= set(there.inputs):
                return there
            # what was recorded stays as it stands: finished folds carry digests of it
            more = {"inputs": {**there.inputs, **record.inputs}, "features": {**there.features, **record.features}}
            content = {**asdict(record), **self._content(), **more}
        else:
            content = asdict(record)
        write_sealed(self.config, content)
        return self.record()

    def finished_folds(self, folds: Iterable[int], resume: bool) -> dict[int, FoldResult]:
        """The results of those folds that are finished; no state to resume from is left of them. Raises UserError where
        there are any, unless ``resume``."""
        finished = {fold: result for fold in folds if (result := self.finished(fold))}
        if finished and not resume:
            found = f"fold {listed(finished, 20)} of this run is finished. Nothing was changed"
            mend = "keep it with --resume, or name another --results_dir, or move that folder away"
            raise UserError(Fault("run.finished", str(self.path), found, mend=mend))
        for fold in finished:
            self.training(fold).state.unlink(missing_ok=True)  # of a process that was killed before it did
        return finished

    def clear(self, fold: int) -> None:
        """Forget what there is of a fold, to start it over."""
        files = self.training(fold)
        for file in (self.fold_result(fold), files.state, files.checkpoint, files.history, self.predictions(fold)):
            file.unlink(missing_ok=True)

    def finish(self, result: FoldResult) -> None:
        """Write the result of a fold, with digests of the run's record and of the fold's files. The fold is finished
        then."""
        files = {file.name: file_sha256(file) for file in self.files(result.fold) if file.is_file()}
        record = FoldRecord(result, self.fingerprint(result.fold), files)
        write_sealed(self.fold_result(result.fold), record.content())
        self.training(result.fold).state.unlink(missing_ok=True)

    def summarise(self, folds: Sequence[int], num_folds: int) -> pd.DataFrame:
        """Write the tables of the folds just run, and those of all folds when all are there.

        Returns the table of means and standard deviations: of all folds, or of these where some are missing. Raises
        UserError where the result of one of the folds just run has vanished.
        """
        everything = [result for fold in range(num_folds) if (result := self.finished(fold))]
        if gone := [fold for fold in folds if fold not in {result.fold for result in everything}]:
            where = ", ".join(str(self.fold_result(fold)) for fold in gone)
            found = "has vanished since the fold was finished, perhaps with the run's folder"
            raise UserError(Fault("run.vanished", where, found, mend="train these folds again, with --resume"))
        if len(folds) < num_folds:
            these = [result for result in everything if result.fold in folds]
            table = self._write_tables(these, f"_partial_{folds[0]}_{folds[-1] + 1}")
        if len(everything) == num_folds:
            table = self._write_tables(everything, "")
        return table

    def _write_tables(self, results: Sequence[FoldResult], suffix: str) -> pd.DataFrame:
        summary = pd.DataFrame([{**asdict(result), "tested_epoch": result.tested()} for result in results])
        metrics = summary[[*RESULT_COLUMNS, *GRAPH_COLUMNS]]
        table = pd.DataFrame({"mean": metrics.mean(), "std": metrics.std(ddof=0)}).T
        write_text(self.path / f"summary{suffix}.csv", csv_text(summary, index=False))
        write_text(self.path / f"results{suffix}.csv", csv_text(table, index_label="metric"))
        return table


def _differences(there: RunRecord, new: RunRecord, without_effect: Collection[str]) -> list[str]:
    names = sorted((set(there.options) | set(new.options)) - CIRCUMSTANCES.union(without_effect))
    differences = [
        f"{name} {there.options.get(name)!r}, now {new.options.get(name)!r}"
        for name in names
        if there.options.get(name) != new.options.get(name)
    ]
    return differences + [
        f"{name} has changed since{there.change_told(name, new)}" for name in there.changed_inputs(new)
    ]
