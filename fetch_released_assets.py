"""Fetch what the authors of HiVE-MIL released: tables, splits and descriptions, and on request features and weights.

Tables, splits and descriptions (0.7 MB) come from github.com/bryanwong17/HiVE-MIL at commit 31c8f6c, each checked by
its sha256. The commit is known by its abbreviation only, so GitHub is asked for <repository>/raw/31c8f6c/<file>; should
it not take that, --base-url names another revision: https://raw.githubusercontent.com/bryanwong17/HiVE-MIL/main, say.
With --older-history the 4- and 8-shot folds and the tables with real patients come in their place, from an older
history of the same repository (commit e458a93). Its checksums are not known, so these files are checked by form.
Features (nine archives of 20 to 25 GB) and CONCH's weights come from Google Drive; no checksum of them is published.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from utils.arguments import Parser, add_option
from utils.config import PROJECT
from utils.errors import run_script
from utils.options import address, location, words


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = partial(add_option, parser)
    add(
        "output-dir",
        type=location,
        default=PROJECT,
        metavar="DIR",
        help="gets dataset_csv/, splits/, ... (the project)",
    )
    add(
        "base-url",
        type=address,
        metavar="URL",
        help="folder of the tables, splits and descriptions (default: on GitHub)",
    )
    add(
        "older-history", action="store_true",
        help="in place of tables, splits and descriptions: the authors' 4- and 8-shot splits and dataset_csv_original/",
    )  # fmt: skip
    add("overwrite", action="store_true", help="replace other tables, splits and descriptions of the same names")
    add(
        "features", nargs=2, type=words, action="append", default=[], metavar=("TASK", "EXTRACTOR"),
        help="also features: tcga_brca, tcga_nsclc, tcga_rcc or all; plip, quiltnet, conch or all; may be given more "
        "than once",
    )  # fmt: skip
    add("data_root_dir", type=location, metavar="DIR", help="where features are unpacked, as main.py reads them")
    add("keep-archive", action="store_true", help="keep the archives once they are unpacked")
    add("conch-weights", action="store_true", help="also conch/pytorch_model.bin (CC-BY-NC-ND 4.0, by MahmoodLab)")
    options = parser.parse_args(argv)
    if options.features and not options.data_root_dir:
        parser.error("--features needs --data_root_dir")
    if not options.features and (options.data_root_dir or options.keep_archive):
        parser.error("--data_root_dir and --keep-archive are for --features")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    from datasets.folders import FeatureFolders
    from datasets.older_history import fetch_older_history
    from datasets.released import fetch_released, fetch_tables, known_pairs

    fetch_small = fetch_older_history if options.older_history else fetch_tables
    features = [FeatureFolders(options.data_root_dir, *pair) for pair in known_pairs(options.features)]
    fetch_released(
        options.output_dir, options.base_url, options.overwrite, features, options.keep_archive, options.conch_weights,
        fetch_small,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_script(main))
