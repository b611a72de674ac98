"""Explain predictions: for each slide a page of heat maps, patches and texts, its scores as tables, and for QuPath."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from utils.arguments import Parser, add_labels_optional, add_option, add_options
from utils.config import OPTIONS
from utils.errors import Faults, run_script
from utils.names import folder_name
from utils.options import location, within
from utils.outputs import check_output_folder, check_outputs

PARTS = ("train", "val", "test")
MOST_SHOWN, MOST_DRAWS = 1000, 10_000


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The script's own options, and those of main.py that were given."""
    parser = Parser(
        description=__doc__,
        epilog="Settings come from config.json beside the checkpoint; without one, from main.py's options below. All "
        "slides of the table, or where a task has no table all with features, are explained unless --slides or --split "
        "choose some.",
    )
    add = partial(add_option, parser)
    add("checkpoint", type=location, nargs="+", required=True, metavar="FILE",
        help="s_<fold>_checkpoint.pt; of several folds of a run probabilities and scores are averaged")  # fmt: skip
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--slides", "--slide", nargs="+", type=folder_name, metavar="ID", help="slides to explain")
    chosen.add_argument("--split", choices=PARTS, help="explain a part of the data, each slide by the folds it is in")
    add("output-dir", type=location, required=True, help="folder to write to")
    add(
        "wsi-dir",
        type=location,
        help="folder with the slides, searched through: patches are shown, not only their places",
    )
    add(
        "top",
        type=within(1, MOST_SHOWN),
        default=8,
        help="patches shown for each class and scale (default: 8)",
    )
    add("draws", type=within(0, MOST_DRAWS), default=5,
        help="removals at random, to compare that of high scores with; 0: without this test (default: 5)")  # fmt: skip
    add_labels_optional(parser)
    add_options(parser.add_argument_group("options of main.py"))
    namespace = parser.parse_args(argv)
    return namespace, {name: value for name, value in vars(namespace).items() if name in OPTIONS}


def main(argv: Sequence[str] | None = None) -> None:
    options, given = parse(argv)
    from tqdm import tqdm

    from datasets.slide_search import find_slides
    from explanation.explain_run import explain_slide, load_hive_mil, slides_to_explain
    from explanation.explanation_files import files_of_slide, write_explanation
    from training.checkpoints import input_paths

    check_output_folder("--output-dir", options.output_dir)
    run = load_hive_mil(options.checkpoint, given, options.slides, options.labels_optional)
    if run.notes:
        print("\n".join(run.notes))
    chosen = slides_to_explain(run, options.slides, options.split)
    outputs = [file for slide_id in chosen for file in files_of_slide(options.output_dir, slide_id)]
    check_outputs(f"--output-dir {options.output_dir}", outputs, input_paths(options.checkpoint, given))
    files = find_slides(options.wsi_dir, list(chosen)) if options.wsi_dir else {}
    faults = Faults()
    for slide_id, folds in tqdm(chosen.items(), desc="explaining", unit="slide", disable=None):
        file = files.get(slide_id)
        explained = faults.attempt(explain_slide, run, slide_id, folds, options.draws, file)
        if explained:
            faults.attempt(write_explanation, explained.value, options.output_dir, run.name, options.top, file)
    faults.raise_any()
    print(f"{len(chosen)} slides explained in {options.output_dir}")


if __name__ == "__main__":
    sys.exit(run_script(main))
