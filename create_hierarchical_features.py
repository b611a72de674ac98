"""Link existing low- and high-magnification features by coordinates: a hierarchical file a slide, ready for main.py."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial

from datasets.feature_layouts import AUTO, LAYOUT_NAMES
from datasets.link_rules import CENTRE, LINK_RULES
from utils.arguments import Parser, add_config_option, add_folder_options, add_option, check_magnifications
from utils.errors import run_script
from utils.options import MOST_WORKERS, location, path, seed, within

MOST_CHILDREN = 10_000


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)

    add = partial(add_option, parser)
    add_folder_options(parser)
    add(
        "max-patches",
        type=within(1, MOST_CHILDREN),
        default=16,
        help="children a parent at most (default: 16)",
    )
    text = (
        "a child belongs to the one parent that holds its centre, or, as the released code links, to every parent that "
        f"holds its top-left corner (default: {CENTRE})"
    )
    add("link-rule", choices=LINK_RULES, default=CENTRE, help=text)
    add("low-dir", type=location, help="folder of the parents' features, or one above (default: in the dataset's)")
    add("high-dir", type=location, help="folder of the children's features, or one above")
    add("output-dir", type=location, help="folder for the hierarchical files (default: main.py's)")
    add("layout", choices=LAYOUT_NAMES, default=AUTO, help="of the features (auto)")
    add_config_option(
        parser, "dataset_csv", help="table of slides, read for level0_mag and mpp (default: dataset_csv/<task>.csv)"
    )
    workers = min(8, os.cpu_count() or 1)
    add("workers", type=within(1, MOST_WORKERS), default=workers, help=f"processes (default: {workers})")
    add("seed", type=seed, default=1, help="of the choice among more than --max-patches children (default: 1)")
    add("overwrite", action="store_true", help="make files anew that are there already")
    text = (
        "project features from before the model's projection, as its image side does; MODEL: its weight file, folder "
        "or hub id (conch/pytorch_model.bin, Astaxanthin/KEEP)"
    )
    add("project-with", type=path, metavar="MODEL", help=text)
    options = parser.parse_args(argv)
    check_magnifications(parser, options)
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    from datasets.folders import FeatureFolders
    from datasets.link_jobs import LinkOptions
    from datasets.linked_patches import Linking
    from datasets.linking import link_slides
    from datasets.projection import Projection
    from datasets.task import optional_table
    from models.vlms.registry import load_head

    table = optional_table(options.task, options.dataset_csv)
    given = options.project_with
    project = Projection.of(load_head(options.feature_extractor, given, "--project-with")) if given else None
    how = LinkOptions(
        linking=Linking(options.link_rule, options.max_patches, options.seed),
        low_dir=options.low_dir,
        high_dir=options.high_dir,
        output_dir=options.output_dir,
        layout=options.layout,
        overwrite=options.overwrite,
        workers=options.workers,
    )
    link_slides(FeatureFolders.of(options), table, how, project)


if __name__ == "__main__":
    sys.exit(run_script(main))
