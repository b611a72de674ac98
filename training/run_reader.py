"""What main.py leaves in the folder of a run: where each file lies, and each file read and checked.

Nothing else reads these files: what a damaged or foreign file is, is decided here.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datasets.slide_names import slide_name
from training.fold_result import FoldRecord, FoldResult, read_fold_record
from training.loop import FoldFiles
from training.metrics import HISTORY_COLUMNS, classification_metrics
from training.run_record import RunRecord
from training.run_tables import (
    TOLERANCE,
    TableFile,
    arrays,
    as_numbers,
    check_probabilities,
    check_slides,
    read_table,
)
from utils.config import OPTIONS, Config
from utils.effects import CIRCUMSTANCES, options_without_effect
from utils.errors import Fault, UserError
from utils.files import file_sha256, read_json, text_sha256
from utils.model_identity import ModelIdentity
from utils.sealed import DIGESTS, damaged_fields, json_sha256
from utils.typed import mistakes, read_as
from utils.words import listed

EARLIER = {"context_per_scale": False}
"""Options that records of earlier versions lack, with what those versions computed; the others had their defaults."""
NEEDED = ("options", "class_names", "descriptions", "inputs")
"""What config.json holds in all versions."""
FOLD_RESULT = re.compile(r"fold_\d+\.json")
OWN_FILE = re.compile(
    r"config\.json|fold_\d+\.json|(splits|history|predictions)_\d+\.csv|s_\d+_checkpoint\.pt|resume_\d+\.pt"
    r"|(results|summary)(_partial_\d+_\d+)?\.csv"
)
OF_A_FOLD = re.compile(r"(?:splits|features)_(\d+)")
"""Inputs that one fold reads."""


class RunReader:
    """The folder of a run, RESULTS/<task>/<fe>/<shots>/<run>/, with the names of the released code."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    def split(self, fold: int) -> Path:
        return self.path / f"splits_{fold}.csv"

    def predictions(self, fold: int) -> Path:
        return self.path / f"predictions_{fold}.csv"

    def fold_result(self, fold: int) -> Path:
        """Written last: a fold is finished when this file is there."""
        return self.path / f"fold_{fold}.json"

    def files(self, fold: int) -> list[Path]:
        """What a finished fold leaves beside its result."""
        files = self.training(fold)
        return [self.split(fold), files.checkpoint, files.history, self.predictions(fold)]

    def own_files(self) -> list[Path]:
        """What is there of what main.py writes."""
        return [file for file in self.path.glob("*") if OWN_FILE.fullmatch(file.name)]

    def training(self, fold: int) -> FoldFiles:
        return FoldFiles(
            checkpoint=self.path / f"s_{fold}_checkpoint.pt",
            history=self.path / f"history_{fold}.csv",
            state=self.path / f"resume_{fold}.pt",
            tensorboard=self.path / "tensorboard" / f"fold_{fold}",
        )

    def holds_run(self) -> bool:
        """Whether the folder has a config.json of main.py, or the result of a fold. Raises UserError where config.json
        is not JSON."""
        has_record = self.config.is_file() and _is_record(read_json(self.config))
        return has_record or any(map(is_fold_result, self.path.glob("fold_*.json")))

    def record(self) -> RunRecord:
        """config.json. Raises UserError where the file is missing, damaged, or another program's."""
        content = self._content()
        return RunRecord(
            options={**asdict(Config()), **EARLIER, **content["options"]},
            class_names=content["class_names"],
            feature_dim=content.get("feature_dim"),
            descriptions=content["descriptions"],
            inputs=content["inputs"],
            versions=content.get("versions", {}),
            num_threads=content.get("num_threads"),
            features=content.get("features", {}),
            features_model=read_as(ModelIdentity, content.get("features_model")),
        )

    def fingerprint(self, fold: int) -> dict[str, str]:
        """What a fold is trained with, as config.json says it: digests by field, without inputs of other folds,
        circumstances, and options without effect on the model. Raises UserError as ``record`` does."""
        content = self._content()
        told = content["options"]
        useless = options_without_effect(Config(**{name: told[name] for name in OPTIONS if name in told}))
        settings = {name: value for name, value in told.items() if name not in CIRCUMSTANCES | useless}
        parts = {"options": settings, **{name: content.get(name) for name in ("class_names", "descriptions")}}
        inputs = {
            f"inputs.{name}": digest
            for name, digest in content["inputs"].items()
            if not (match := OF_A_FOLD.fullmatch(name)) or int(match[1]) == fold
        }
        return {**{name: json_sha256(value) for name, value in parts.items()}, **inputs}

    def finished(self, fold: int) -> FoldResult | None:
        """fold_<fold>.json; None where the fold is not finished. Raises UserError where the file is damaged, or of
        another fold or run."""
        record = self._fold_record(fold)
        if record and record.run is not None:
            here = self.fingerprint(fold)
            others = differing(record.run, here)
            if others:
                raise UserError(
                    Fault(
                        "run.foreign", str(self.fold_result(fold)),
                        f"of a run with other {listed(others, 10, quote=False)}",
                        expected=f"those of {self.config}",
                        mend="put the file of this run back, or remove it to train the fold again",
                    )
                )  # fmt: skip
        return record.result if record else None

    def check_files(self, fold: int, *files: Path) -> None:
        """Raises UserError with those of a finished fold's files that are there and are not what the fold's result was
        written with; a fold that is not finished, or whose result carries no digests, has none."""
        record = self._fold_record(fold)
        told = record.files if record else None
        if told is None:
            return
        checkpoint, result = self.training(fold).checkpoint, self.fold_result(fold).name
        wrong = [file for file in files if file.is_file() and file_sha256(file) != told.get(file.name)]
        if wrong:
            found = f"not the file that {result} names: damaged, edited, or of another fold or run"
            mend = f"put the file of this fold back, or {self._mend(fold)}"
            faults = []
            for file in wrong:
                code = "checkpoint.changed" if file == checkpoint else "run.changed_file"
                faults.append(Fault(code, str(file), found, mend=mend))
            raise UserError(faults)

    def notes(self, folds: Iterable[int]) -> list[str]:
        """What a user should know: which of config.json and the results of some folds carry no digests, if any."""
        files = [self.config, *map(self.fold_result, folds)]
        bare = [file.name for file in files if file.is_file() and DIGESTS not in read_json(file)]
        if not bare:
            return []
        return [
            f"an earlier version wrote {', '.join(bare)} without digests; damage to them, or to files of these folds, "
            "may go unseen"
        ]

    def read_predictions(self, result: FoldResult, class_names: Sequence[str]) -> pd.DataFrame:
        """predictions_<fold>.csv of a finished fold: split (val, test), slide_id, label, prediction, prob_<CLASS>...

        result: what ``finished`` gave for the fold. Raises UserError where the file is not there, or not what the
        result was computed from.
        """
        source = TableFile(self.predictions(result.fold), self._mend(result.fold))
        self.check_files(result.fold, source.file)
        table = read_table(source)
        check_slides(table, class_names, source)
        table["slide_id"] = table["slide_id"].map(slide_name)
        check_probabilities(table, class_names, source)
        for split in ("val", "test"):
            metrics = classification_metrics(*arrays(table[table["split"] == split], class_names))
            for name, found in metrics._asdict().items():
                recorded = getattr(result, f"{split}_{name}")
                if not np.isclose(found, recorded, rtol=0, atol=TOLERANCE, equal_nan=True):
                    expected = f"{recorded:.4f}, as in {self.fold_result(result.fold).name}"
                    raise source.error("predictions.other_result", f"found {split}_{name} {found:.4f}", expected)
        return table

    def read_history(self, result: FoldResult) -> pd.DataFrame:
        """history_<fold>.csv of a finished fold, one row per epoch. Raises UserError where the file is not there, lacks
        a column that is drawn, or is not that of the result."""
        source = TableFile(self.training(result.fold).history, self._mend(result.fold))
        self.check_files(result.fold, source.file)
        table = read_table(source).replace("", "nan")  # how pandas writes NaN
        wanted = ("epoch", *HISTORY_COLUMNS)
        if wrong := as_numbers(table, wanted):
            found = f"no column of numbers {listed(wrong, quote=False)}; found {listed(table)}"
            raise source.error("history.columns", found)
        if len(table) != result.epochs:
            raise source.error("history.length", f"found {len(table)} epochs", str(result.epochs))
        return table

    def _fold_record(self, fold: int) -> FoldRecord | None:
        file = self.fold_result(fold)
        return read_fold_record(file, fold) if file.exists() else None

    def _content(self) -> dict[str, Any]:
        """The fields of config.json, checked."""
        if not self.config.is_file():
            raise UserError(
                Fault(
                    "run.missing", str(self.path), "no run found",
                    expected="a folder with a config.json, <results_dir>/<task>/<feature_extractor>/<shots>/<run>, as "
                    "main.py writes it",
                )
            )  # fmt: skip
        content = read_json(self.config)
        if not _is_record(content):
            raise UserError(
                Fault(
                    "run.foreign", str(self.config), "not a config.json of main.py",
                    expected=f"its {', '.join(NEEDED)}", mend="name another folder, or move the file away",
                )
            )  # fmt: skip
        wrong = _damaged(content)
        if wrong:
            raise UserError(
                Fault(
                    "run.unreadable", str(self.config), f"damaged or edited: {listed(wrong, 10, quote=False)}",
                    expected="the file as main.py wrote it",
                    mend="put that file back, or train the run again in another --results_dir",
                )
            )  # fmt: skip
        return content  # type: ignore[no-any-return]

    def _mend(self, fold: int) -> str:
        return f"remove {self.fold_result(fold).name} and train the fold again with --resume"


def is_fold_result(file: Path) -> bool:
    """Whether a file has the name of the result of a fold."""
    return FOLD_RESULT.fullmatch(file.name) is not None


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The names whose values are not those of the other mapping; those that the other alone has do not count."""
    return [name for name in one if other.get(name) != one[name]]


def _is_record(content: Any) -> bool:
    return isinstance(content, dict) and (set(NEEDED) <= set(content) or DIGESTS in content)


def _unfit_options(options: Mapping[str, Any]) -> list[str]:
    """Where values are of another type than main.py takes, or out of bounds. Options, and names among the choices of
    one, that this version does not know may be another's: ``config_of`` refuses them."""
    known = {name: value for name, value in options.items() if name in OPTIONS}
    reasons = ((name, OPTIONS[name].out_of_bounds(value)) for name, value in known.items())
    return mistakes(Config, known, "options") or [f"options.{name}: {why}" for name, why in reasons if why]


def _damaged(content: Mapping[str, Any]) -> list[str]:
    """The fields of a record that are damaged: by their digests or, without any, as far as the others tell."""
    whole = {"feature_dim": None, "versions": {}, **content}
    wrong = damaged_fields(content) or mistakes(RunRecord, whole) or _unfit_options(content["options"])
    if wrong:
        return wrong
    if DIGESTS not in content:
        wrong = sorted(set(content) - {item.name for item in fields(RunRecord)})
    names = content["class_names"]
    if len(set(names)) < max(len(names), 1):
        wrong.append(f"class_names: {names}")
    known = content["inputs"].get("text_prompt")
    if known is not None and known != text_sha256(json.dumps(content["descriptions"])):
        wrong.append("descriptions")
    return wrong
