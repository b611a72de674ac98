"""Make a task for the baselines from a data set of multiple instance learning, with folds for cross-validation."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from shlex import quote

from utils.arguments import add_config_option, add_option
from utils.errors import UserError, run_script
from utils.options import at_least, folder_name

PACKAGED = ("ucsb", "musk1")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = partial(add_option, parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--csv", type=Path, metavar="FILE", help="a table without header: label, bag, then the features; a row an "
        "instance"
    )  # fmt: skip
    source.add_argument("--dataset", choices=PACKAGED, help="UCSB breast cancer or Musk1, from the package mil")
    add("output-dir", type=Path, required=True, metavar="DIR", help="folder to write to")
    of_main = partial(add_config_option, parser)
    of_main("task", type=folder_name, default=None, help="its name (default: the data set's, or that of the file)")
    of_main(
        "feature_extractor", type=folder_name, default=None,
        help="what made the features (default: mil<number of features>)",
    )  # fmt: skip
    add("k", type=at_least(2), default=10, metavar="N", help="folds (default: 10)")
    add("seed", type=at_least(0), default=1, metavar="N", help="of the folds (default: 1)")
    add(
        "standardise", action="store_true", help="give every feature mean 0 and standard deviation 1 over all bags, "
        "those tested among them; labels are not used"
    )  # fmt: skip
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    from datasets.folders import FeatureFolders
    from datasets.mil_task import draw_folds, packaged_csv, read_mil_csv, standardise, write_mil_task

    source = options.csv or packaged_csv(options.dataset)
    task = options.task or options.dataset or source.stem
    table = options.output_dir / f"{task}.csv"
    if table.exists():
        raise UserError(f"{table}: is there already; remove that task, or name another --output-dir or --task")
    data = read_mil_csv(source)
    folds = draw_folds(data, options.k, options.seed)
    if options.standardise:
        data = standardise(data)
    sizes = [len(features) for features in data.features.values()]
    width = next(iter(data.features.values())).shape[1]
    folders = FeatureFolders(options.output_dir, task, options.feature_extractor or f"mil{width}")
    write_mil_task(options.output_dir, folders, data, folds, source, options.standardise)
    classes = sorted(set(data.labels.values()))
    print(
        f"task {task}: {len(sizes)} bags of {min(sizes)} to {max(sizes)} instances, {sum(sizes)} in all; {width} "
        f"features; classes {', '.join(classes)}; {options.k} folds"
    )
    command = {
        "model_type": "ABMIL", "task": task, "feature_extractor": folders.feature_extractor,
        "data_root_dir": options.output_dir, "dataset_csv": table, "split_dir": options.output_dir / "splits",
        "k": options.k,
    }  # fmt: skip
    print("train with: python main.py " + " ".join(f"--{name} {quote(str(value))}" for name, value in command.items()))


if __name__ == "__main__":
    sys.exit(run_script(main))
