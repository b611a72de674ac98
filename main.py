"""Train a model on every fold of a task, test it, and write results.csv."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from utils.arguments import Parser, add_option, add_options, check_magnifications
from utils.config import OPTIONS, Config
from utils.effects import options_without_effect
from utils.errors import run_script
from utils.options import location
from utils.outputs import check_outputs


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The script's own options, and those of ``Config`` that were given."""
    usage = "main.py --task TASK --data_root_dir DIR [options]\n       main.py --from_config RUN/config.json [options]"
    parser = Parser(usage=usage, description=__doc__)
    add_options(parser)
    add_option(
        parser, "from_config", type=location, metavar="FILE",
        help="repeat the run of a config.json, with its options, folds and threads; options that say where inputs lie "
        "or how this machine works may differ",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="with --dry_run: faults and passed checks as JSON")
    options = parser.parse_args(argv)
    given = {name: value for name, value in vars(options).items() if name in OPTIONS}
    low, high = (given.get(name, getattr(Config, name)) for name in ("low_mag", "high_mag"))
    check_magnifications(parser, argparse.Namespace(low_mag=low, high_mag=high))
    if options.json and not given.get("dry_run"):
        parser.error("--json: expected together with --dry_run")
    return options, given


def main(argv: Sequence[str] | None = None) -> None:
    options, given = parse(argv)
    from datasets.model_texts import text_paths
    from training.examination import checked_inputs
    from training.fold import run_fold
    from training.repeat import bytes_notes, check_repetition, read_repetition
    from training.run_folder import RunFolder
    from utils.reproducibility import seed_everything

    # read and check everything, before anything is written
    config, compare = Config(**given), None
    if options.from_config:
        repeated, config = read_repetition(options.from_config, given)
        compare = partial(check_repetition, repeated)
    inputs = checked_inputs(config, given, options.json, compare)
    if config.dry_run:
        return

    # open the run's folder: a new one, or that of the same run
    run = RunFolder(config.run_path())
    read = [config.csv_path(), *text_paths(config), *map(config.split_path, config.folds())]
    check_outputs(f"--results_dir {config.results_dir}", run.own_files(), read)
    with run.lock("config", wait=True):
        record = inputs.record()
        notes = bytes_notes(run.open(record, options_without_effect(config)), record)
    print("".join(f"{note}\n" for note in notes), end="")
    finished = run.finished_folds(config.folds(), config.resume)
    for note in run.notes(range(config.k)):
        print(f"note: {run.path}: {note}")

    # train and test each fold
    for split in inputs.splits:
        result = finished.get(split.fold)
        if result is None:
            try:
                with run.lock(f"fold_{split.fold}"):
                    # another process may have finished the fold since
                    result = run.finished_folds([split.fold], config.resume).get(split.fold)
                    if result is None:
                        seed_everything(config.seed)
                        result = run_fold(config, inputs.build_model(), inputs.cache, split, inputs.class_names, run)
            except KeyboardInterrupt:
                print("finished epochs are kept: --resume goes on behind them", file=sys.stderr)
                raise
        print(result.summary())

    # summarise
    table = run.summarise([split.fold for split in inputs.splits], config.k)
    print(f"\n{table.to_string(float_format='{:.4f}'.format)}\n\nresults in {run.path}")


if __name__ == "__main__":
    sys.exit(run_script(main))
