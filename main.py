"""Train a model on every fold of a task, test its best epoch, and write results.csv."""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

from utils.arguments import add_options
from utils.config import Config
from utils.effects import options_without_effect
from utils.errors import Fault, Faults, UserError, run_script


def parse(argv: Sequence[str] | None) -> tuple[Config, set[str]]:
    """The options of the run, and the names of all that were given, ``json`` among them."""
    usage = "main.py --task TASK --data_root_dir DIR [options]"
    parser = argparse.ArgumentParser(usage=usage, description=__doc__, allow_abbrev=False)
    add_options(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="with --dry_run: faults and passed checks as JSON",
    )
    given = vars(parser.parse_args(argv))
    config = Config(**{name: value for name, value in given.items() if name != "json"})
    if "json" in given and not config.dry_run:
        parser.error("--json: expected together with --dry_run")
    return config, set(given)


def main(argv: Sequence[str] | None = None) -> None:
    config, given = parse(argv)
    as_json = "json" in given
    from training.fold import run_fold
    from training.inputs import load_inputs
    from training.run_folder import RunFolder
    from utils.reproducibility import seed_everything

    # read and check everything, before anything is written
    faults = Faults()
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        looked = faults.attempt(load_inputs, config, given, faults)
    if as_json:
        print(json.dumps({**faults.to_dict(), "notes": looked.value.notes if looked else []}, indent=2))
    faults.raise_any()
    inputs = looked.value
    if not as_json:
        print("\n".join([*inputs.notes, *(["dry run: all checks passed"] if config.dry_run else [])]))
    if config.dry_run:
        return

    # open the run's folder: a new one, or that of the same run
    run = RunFolder(config.run_path())
    with run.lock("config", wait=True):
        run.open(inputs.record(), options_without_effect(config))
    finished = {split.fold: result for split in inputs.splits if (result := run.finished(split.fold))}
    for note in run.notes(range(config.k)):
        print(f"note: {run.path}: {note}")
    if finished and not config.resume:
        found = f"fold {', '.join(map(str, finished))} of this run is finished. Nothing was changed"
        mend = "keep it with --resume, or name another --results_dir, or move that folder away"
        raise UserError(Fault("run.finished", str(run.path), found, mend=mend))

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
        print(
            f"fold {split.fold}: test auc {result.test_auc:.4f} f1 {result.test_f1:.4f} acc {result.test_acc:.4f} "
            f"(best epoch {result.best_epoch + 1} of {result.epochs})"
        )

    # summarise
    table = run.summarise([split.fold for split in inputs.splits], config.k)
    print(f"\n{table.to_string(float_format='{:.4f}'.format)}\n\nresults in {run.path}")


if __name__ == "__main__":
    sys.exit(run_script(main))
