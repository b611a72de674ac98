"""Train a model on every fold of a task, test its best epoch, and write results.csv."""

import argparse
import sys
from collections.abc import Sequence

from utils.arguments import add_options
from utils.config import Config
from utils.effects import options_without_effect
from utils.errors import run_script


def parse(argv: Sequence[str] | None) -> tuple[Config, set[str]]:
    """The options of the run, and the names of all that were given, ``json`` among them."""
    usage = "main.py --task TASK --data_root_dir DIR [options]"
    parser = argparse.ArgumentParser(usage=usage, description=__doc__, allow_abbrev=False)
    add_options(parser)
    text = "with --dry_run: faults and passed checks as JSON"
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=text)
    given = vars(parser.parse_args(argv))
    config = Config(**{name: value for name, value in given.items() if name != "json"})
    if "json" in given and not config.dry_run:
        parser.error("--json: expected together with --dry_run")
    return config, set(given)


def main(argv: Sequence[str] | None = None) -> None:
    config, given = parse(argv)
    from training.fold import run_fold
    from training.inputs import checked_inputs
    from training.run_folder import RunFolder
    from utils.reproducibility import seed_everything

    # read and check everything, before anything is written
    inputs = checked_inputs(config, given, as_json="json" in given)
    if config.dry_run:
        return

    # open the run's folder: a new one, or that of the same run
    run = RunFolder(config.run_path())
    with run.lock("config", wait=True):
        run.open(inputs.record(), options_without_effect(config))
    finished = run.finished_folds(config.folds(), config.resume)
    for note in run.notes(range(config.k)):
        print(f"note: {run.path}: {note}")

    # train and test each fold
    for split in inputs.splits:
        result = finished.get(split.fold)
        if result is None:
            try:
                with run.lock(f"fold_{split.fold}"):
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
