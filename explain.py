"""Explain predictions: for each slide a page of heat maps, patches and texts, its scores as tables, and for QuPath."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.arguments import add_option, add_options
from utils.config import OPTIONS
from utils.errors import Faults, UserError, run_script
from utils.options import at_least

if TYPE_CHECKING:
    from explanation.explain_slide import SlideReport

PARTS = ("train", "val", "test")


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The script's own options, and those of main.py that were given."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Settings come from config.json beside the checkpoint; without one, from main.py's options below.",
        allow_abbrev=False,
    )
    add = partial(add_option, parser)
    add("checkpoint", type=Path, nargs="+", required=True, metavar="FILE",
        help="s_<fold>_checkpoint.pt; of several folds of a run probabilities and scores are averaged")  # fmt: skip
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--slide", nargs="+", metavar="ID", help="slides to explain")
    chosen.add_argument("--split", choices=PARTS, help="explain a part of the data, each slide by the folds it is in")
    add("output-dir", type=Path, required=True, help="folder to write to")
    add("wsi-dir", type=Path, help="folder with the slides, searched through: patches are shown, not only their places")
    add("top", type=at_least(1), default=8, help="patches shown for each class and scale (default: 8)")
    add("draws", type=at_least(0), default=5,
        help="removals at random, to compare that of high scores with; 0: without this test (default: 5)")  # fmt: skip
    add_options(parser.add_argument_group("options of main.py"))
    namespace = parser.parse_args(argv)
    return namespace, {name: value for name, value in vars(namespace).items() if name in OPTIONS}


def write_report(report: "SlideReport", folder: Path, run_name: str, top: int) -> list[Path]:
    """Write a slide's tables, its patches for QuPath, and last its page; returns the files."""
    from explanation.qupath import feature_collection
    from explanation.score_tables import patch_table, removal_table, text_table
    from explanation.slide_page import render_explanation
    from utils.files import write_text

    name = report.slide_id
    contents: dict[str, tuple[str, str]] = {}
    for scale in report.scales:
        at = f"{scale.magnification}x"
        table = patch_table(report, scale).to_csv(index=False)
        contents[f"{name}_{at}.csv"] = f"scores of all {at} patches", table
        features = json.dumps(feature_collection(report, scale), allow_nan=False)
        contents[f"{name}_{at}.geojson"] = f"{at} patches for QuPath (drag it onto the open slide)", features
    contents[f"{name}_texts.csv"] = "what each text adds", text_table(report).to_csv(index=False)
    if report.removal:
        contents[f"{name}_removal.csv"] = "the removal of patches", removal_table(report.removal).to_csv(index=False)
    page = render_explanation(report, run_name, top, {file: title for file, (title, _) in contents.items()})
    contents[f"{name}.html"] = "", page
    for file, (_, text) in contents.items():
        write_text(folder / file, text)
    return [folder / file for file in contents]


def main(argv: Sequence[str] | None = None) -> None:
    options, given = parse(argv)
    from tqdm import tqdm

    from datasets.slides import find_slides, read_overview, reading
    from explanation.explain_slide import choose_slides, explain_slide, load_hive_mil

    if options.output_dir.is_file():
        raise UserError(f"--output-dir {options.output_dir}: is a file, expected a folder")
    faults = Faults()
    run = load_hive_mil(options.checkpoint, given)
    chosen = choose_slides(run, options.slide, options.split)
    files = find_slides(options.wsi_dir, list(chosen)) if options.wsi_dir else {}
    for slide_id, folds in tqdm(chosen.items(), desc="explaining", unit="slide", disable=None):
        report = faults.maybe(explain_slide, run, slide_id, folds, options.draws, files.get(slide_id))
        if report is None:
            continue
        if slide_id not in files:
            write_report(report, options.output_dir, run.name, options.top)
            continue
        with reading(files[slide_id]) as slide:
            seen = replace(report, read=partial(read_overview, slide))
            write_report(seen, options.output_dir, run.name, options.top)
    faults.raise_any()
    print(f"{len(chosen)} slides explained in {options.output_dir}")


if __name__ == "__main__":
    sys.exit(run_script(main))
