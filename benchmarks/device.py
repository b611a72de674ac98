"""Counts what a GPU pays for besides the arithmetic: operations that are started, and waits for their results.

    python -m benchmarks.device                        every model, a slide of 850 parents: a few minutes on two cores
    python -m benchmarks.device --models HiVE_MIL --parents 1880

No GPU is needed: benchmarks/pretend_device.py stands in for one. An evaluation is ``evaluate`` of one slide, with the
texts encoded before; a training step is ``train_epoch`` of one slide, with Adam. Both include the copy of the slide.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from benchmarks.baselines import VARIANTS, bag_for
from benchmarks.baselines import build as build_baseline
from benchmarks.model import build as build_hive_mil
from benchmarks.model import table
from benchmarks.pretend_device import Counts, pretend_device
from training.evaluation import evaluate
from training.loop import build_optimizer, train_epoch
from utils.config import Config
from utils.errors import run_script
from utils.interface import Bag, SlideModel
from utils.model_types import MODEL_TYPES

COLUMNS = ["model", "step", "operations", "of them views", "waits", "copies to the device"]


def build(name: str) -> SlideModel:
    """A model on the CPU; HiVE-MIL with texts that are not alike, so that nearly all parents are retained."""
    device = torch.device("cpu")
    if name in ("HiVE_MIL", *VARIANTS):
        return build_hive_mil(VARIANTS.get(name, (name, "paper"))[1], device)
    return build_baseline(name, device)


def counts_of(model: SlideModel, bag: Bag) -> dict[str, Counts]:
    """What the second evaluation and the second training step of a slide take."""
    config = Config()
    with pretend_device() as (device, counts):
        model.to(device)
        optimizer = build_optimizer(model, config)

        def counted(step: Callable[[], object]) -> Counts:
            step()
            counts.reset()
            step()
            return replace(counts)

        return {
            "evaluation": counted(lambda: evaluate(model, [bag], device)),
            "training": counted(lambda: train_epoch(model, [bag], optimizer, config)),
        }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*MODEL_TYPES, *VARIANTS]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--parents", type=int, default=850)
    options = parser.parse_args(argv)
    rows = []
    for name in options.models:
        for step, counts in counts_of(build(name), bag_for(name, options.parents, torch.device("cpu"))).items():
            rows.append([name, step, counts.calls, counts.views, counts.synchronisations, counts.copies])
    table(f"{options.parents:,} parents", COLUMNS, rows)


if __name__ == "__main__":
    sys.exit(run_script(main))
