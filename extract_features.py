"""Turn slides into main.py's features: 5x and 20x patches of the tissue, encoded, and linked, in one pass."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import NoReturn

from utils.arguments import Parser, add_config_option, add_folder_options, add_option
from utils.errors import run_script
from utils.options import MOST_WORKERS, GpuShare, Number, at_least, location, shard, within, words

READERS = ("auto", "tiles", "openslide")
PRECISIONS = ("fp32", "fp16", "bf16")
level0 = Number(float, 1, 160, suffix="x")
"""An argparse type: 40 or 40x."""


class ListModels(argparse.Action):
    """Prints the table of published models, in place of whatever else is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from models.vlms.catalogue import text_table

        print(text_table())
        parser.exit()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = partial(add_option, parser)
    add("wsi-dir", type=location, required=True, help="folder with the slides, searched through")
    add_folder_options(parser)
    of_main = partial(add_config_option, parser)
    of_main("vlm_path")
    add("list-models", nargs=0, action=ListModels, help="print the published models and stop")
    of_main(
        "dataset_csv",
        type=location,
        help="table of slides: only those it names; its level0_mag counts where no tag tells",
    )
    add("level0-mag", type=level0, help="magnification of level 0 of slides that no tag or table tells")
    add("force-magnification", type=level0, help="magnification of level 0 of all slides, whatever their tags tell; "
        "the column force_magnification of --dataset_csv says it slide by slide")  # fmt: skip
    add("min-tissue", type=at_least(0, float, 1), default=0.1, help="least share of tissue in a patch (default: 0.1)")
    where = parser.add_mutually_exclusive_group()
    add_option(where, "tissue-threshold", type=within(0, 254), metavar="N", help="tissue is where the saturation, of "
               "255, exceeds N (default: Otsu's threshold, between 8 and 64)")  # fmt: skip
    add_option(where, "tissue-mask", type=location, metavar="DIR", help="folder with a mask for each slide, PNG or "
               "TIFF (0: no tissue), or contours as in TRIDENT's contours_geojson")  # fmt: skip
    add("stain-normalisation", choices=["none", "macenko"], default="none", help="of each slide's colours (none)")
    add(
        "reader",
        choices=READERS,
        default="auto",
        help="tiles where they give OpenSlide's pixels (auto), or one way alone",
    )
    add(
        "half-decode",
        action="store_true",
        help="40x slides without a 20x level: decode JPEG tiles at half size, faster; pixels differ, as files then say",
    )
    add("batch-size", type=at_least(1), default=256, help="patches encoded together, about (default: 256)")
    workers = min(16, os.cpu_count() or 1)
    add(
        "workers",
        type=within(0, MOST_WORKERS),
        default=workers,
        help=f"processes that read slides (default: {workers})",
    )
    add("shard", type=shard, metavar="K/N", help="extract the K-th of N parts of the slides, as for job arrays")
    add(
        "address",
        type=words,
        metavar="ADDRESS",
        help="a running Ray cluster (auto, or HOST:PORT) that extracts one slide per process",
    )
    shares = "GPUs of each process of the cluster, or part of one (default: 1 where there are any)"
    add("gpus_per_worker", type=GpuShare(float, 0, MOST_WORKERS), metavar="N", help=shares)
    of_main("device")
    add("precision", choices=PRECISIONS, help="of the encoder (default: fp16 on CUDA, fp32 elsewhere)")
    add("no-thumbnails", action="store_true", help="do not draw each slide with its mask and grid")
    add("skip-errors", action="store_true", help="go on with other slides, and list at the end what failed and why")
    add("overwrite", action="store_true", help="replace files that are damaged or were made with other settings")
    options = parser.parse_args(argv)
    if options.gpus_per_worker is not None and not options.address:
        parser.error("--gpus_per_worker is for --address")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    from datasets.encoding import EncoderSource
    from datasets.extract import ExtractionOptions, extract_slides
    from datasets.folders import FeatureFolders
    from models.vlms import load_image_side

    source = EncoderSource.of(load_image_side, options.feature_extractor, options.vlm_path)
    how = ExtractionOptions(**{item.name: getattr(options, item.name) for item in fields(ExtractionOptions)})
    extract_slides(FeatureFolders.of(options), options.wsi_dir, source, how)


if __name__ == "__main__":
    sys.exit(run_script(main))
