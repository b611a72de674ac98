"""experiment.json: the runs of grids, as run_experiments.py lists them."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from utils.errors import Fault, UserError
from utils.files import read_json
from utils.typed import mistakes

EXPERIMENT = "experiment.json"


@dataclass(frozen=True)
class ListedRun:
    """label: of the run's row. path: of its folder, relative to the file's. preset: whose table the row is in."""

    label: str
    path: str
    preset: str | None = None


@dataclass(frozen=True)
class Experiment:
    """The content of experiment.json; a run may have other fields too."""

    runs: list[ListedRun]


def read_experiment(file: Path) -> list[dict[str, Any]]:
    """The runs that are listed, with all their fields; none where there is no file. Raises UserError where it is no
    such list."""
    if not file.exists():
        return []
    content = read_json(file)
    if wrong := mistakes(Experiment, content):
        raise UserError(
            Fault(
                "experiment.unreadable", str(file), f"not a list of runs ({wrong[0]})",
                expected='{"runs": [{"label", "preset", "path", ...}]}, as python run_experiments.py writes it',
                mend="move it away; run_experiments.py lists its runs anew",
            )
        )  # fmt: skip
    runs: list[dict[str, Any]] = content["runs"]
    return runs


def listed_runs(file: Path) -> list[ListedRun]:
    """As ``read_experiment``, what tables need of each run."""
    names = {item.name for item in fields(ListedRun)}
    return [ListedRun(**{name: value for name, value in run.items() if name in names}) for run in read_experiment(file)]
