"""Predict slides with trained checkpoints of main.py, or with a bare one (of the released code, say)."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.arguments import Parser, add_labels_optional, add_option, add_options
from utils.config import OPTIONS
from utils.errors import run_script
from utils.options import location
from utils.outputs import check_outputs


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Checkpoints, output and slides, and the options of main.py that were given."""
    parser = Parser(
        description=__doc__,
        epilog="Settings come from config.json beside the checkpoint; without one, from main.py's options below. With "
        "--resume, slides that an interrupted call had finished are kept.",
    )
    add_option(
        parser, "checkpoint", type=location, nargs="+", required=True, metavar="FILE",
        help="s_<fold>_checkpoint.pt; the probabilities of several folds of a run are averaged",
    )  # fmt: skip
    add_option(parser, "output", type=location, default=Path("predictions.csv"), help="CSV to write")
    add_option(
        parser, "wsi-dir", type=location,
        help="predict the slides in this folder; their features are made first, in --data_root_dir",
    )  # fmt: skip
    add_labels_optional(parser)
    add_options(parser.add_argument_group("options of main.py"))
    namespace = parser.parse_args(argv)
    given = {name: value for name, value in vars(namespace).items() if name in OPTIONS}
    if namespace.wsi_dir:
        if given.get("features_from"):
            parser.error("--features-from reads features in place, and --wsi-dir makes them: expected one of the two")
        given["features_from"] = None
    return namespace, given


def main(argv: Sequence[str] | None = None) -> None:
    options, given = parse(argv)
    output: Path = options.output
    from datasets.slide_search import search_slides
    from reports.prediction_report import output_files, write_predictions
    from training.checkpoints import input_paths, read_settings
    from training.prediction import make_features, predict_slides, seen_note
    from training.trained_run import load_run

    kept = output.with_name(f".{output.name}.partial.json")
    slides = search_slides(options.wsi_dir).files.values() if options.wsi_dir else ()
    check_outputs(
        f"--output {output}", [*output_files(output), kept], [*input_paths(options.checkpoint, given), *slides]
    )
    slide_ids = None
    if options.wsi_dir:
        record, config = read_settings(options.checkpoint[0], given)
        slide_ids = make_features(options.wsi_dir, config, record)
    run = load_run(options.checkpoint, given, slide_ids, labels_optional=options.labels_optional)
    print("\n".join([*run.notes, f"classes: {', '.join(run.class_names)}", *seen_note(run)]))
    if run.config.dry_run:
        print("dry run: all checks passed")
        return
    predictions = predict_slides(run, kept, run.config.resume)
    print(write_predictions(output, predictions), end="")
    kept.unlink()
    print(f"{len(run.slides)} slides in {output}")


if __name__ == "__main__":
    sys.exit(run_script(main))
