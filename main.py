"""Train a model on every fold of a task, test its best epoch, and write results.csv."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.arguments import add_option, add_options
from utils.config import OPTIONS, Config
from utils.effects import options_without_effect
from utils.errors import Attempt, Fault, Faults, UserError, run_script

if TYPE_CHECKING:
    from training.inputs import RunInputs
    from training.run_reader import RunRecord


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The script's own options, and those of ``Config`` that were given."""
    usage = "main.py --task TASK --data_root_dir DIR [options]\n       main.py --from_config RUN/config.json [options]"
    parser = argparse.ArgumentParser(usage=usage, description=__doc__, allow_abbrev=False)
    add_options(parser)
    add_option(
        parser, "from_config", type=Path, metavar="FILE",
        help="repeat the run that a config.json tells of, with its options and threads; options that say where may "
        "differ. A changed input is refused",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="with --dry_run: faults and passed checks as JSON")
    options = parser.parse_args(argv)
    given = {name: value for name, value in vars(options).items() if name in OPTIONS}
    if options.json and not given.get("dry_run"):
        parser.error("--json: expected together with --dry_run")
    return options, given


def look(options: argparse.Namespace, given: Mapping[str, Any]) -> "RunInputs":
    """Read and check everything that the run needs, and print what the user should know. Raises UserError."""
    from training.inputs import load_inputs
    from training.repeat import check_repetition, read_repetition

    faults = Faults()
    settings: Attempt[tuple[RunRecord | None, Config]]
    with redirect_stdout(sys.stderr if options.json else sys.stdout):
        if options.from_config:
            settings = faults.attempt(read_repetition, options.from_config, given)
        else:
            settings = Attempt((None, Config(**given)))
        looked = faults.attempt(lambda: load_inputs(settings.value[1], given, faults))
        if looked and (repeated := settings.value[0]):
            faults.check("inputs of the repeated run", check_repetition, repeated, looked.value)
    if options.json:
        print(json.dumps({**faults.to_dict(), "notes": looked.value.notes if looked else []}, indent=2))
    faults.raise_any()
    inputs = looked.value
    if not options.json:
        print("\n".join([*inputs.notes, *(["dry run: all checks passed"] if inputs.config.dry_run else [])]))
    return inputs


def main(argv: Sequence[str] | None = None) -> None:
    options, given = parse(argv)
    from training.fold import run_fold
    from training.repeat import bytes_notes
    from training.run_folder import RunFolder
    from utils.reproducibility import seed_everything

    # read and check everything, before anything is written
    inputs = look(options, given)
    config = inputs.config
    if config.dry_run:
        return

    # open the run's folder: a new one, or that of the same run
    run = RunFolder(config.run_path())
    with run.lock("config", wait=True):
        record = inputs.record()
        notes = bytes_notes(run.open(record, options_without_effect(config)), record)
    print("".join(f"{note}\n" for note in notes), end="")
    finished = {split.fold: result for split in inputs.splits if (result := run.finished(split.fold))}
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
