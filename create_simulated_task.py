"""Make a simulated task: a small random CLIP, descriptions, slides with planted patterns, and splits."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields

from datasets.simulation_settings import SimulationSettings
from utils.arguments import Parser, add_option
from utils.errors import run_script
from utils.options import MOST_FOLDS, location, seed, within

TASK, FEATURE_EXTRACTOR = "simulated", "tinyclip"
MOST_SLIDES, MOST_WIDE = 10_000, 4096
HEADS = 4  # of the CLIP


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_option(parser, "output-dir", type=location, required=True, help="folder to write to")
    parser.add_argument("--classes", type=within(2, 8), default=3, metavar="2..8", help="number of classes")
    add_option(parser, "slides-per-class", type=within(5, MOST_SLIDES), default=40, help="slides a class")
    parser.add_argument("--shots", type=within(1, MOST_SLIDES), nargs="+", default=[4], help="training slides a class")
    parser.add_argument("--folds", type=within(1, MOST_FOLDS), default=2, help="folds of each split")
    parser.add_argument("--width", type=within(4, MOST_WIDE), default=64, help="of the features")
    parser.add_argument("--seed", type=seed, default=1, help="of everything that is drawn")
    for setting in fields(SimulationSettings):
        name, (lowest, highest) = setting.name.replace("_", "-"), setting.metadata["range"]
        kind = within(lowest, highest, int if isinstance(setting.default, int) else float)
        add_option(parser, name, type=kind, default=setting.default, help="see datasets/simulation_settings.py")
    options = parser.parse_args(argv)
    if options.width % HEADS:
        parser.error(f"--width {options.width}: expected a multiple of {HEADS}")
    if options.min_parents > options.max_parents:
        parser.error(f"--min-parents {options.min_parents}: expected at most --max-parents {options.max_parents}")
    if options.planted_share + options.confounder_share > 1:
        shares = f"--planted-share {options.planted_share} --confounder-share {options.confounder_share}"
        parser.error(f"{shares}: expected at most 1 together")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    import torch

    from datasets import simulate
    from datasets.descriptions import arrange_descriptions
    from datasets.folders import FeatureFolders
    from models.prompts import PromptLearner
    from models.tiny_clip import save_tiny_clip
    from models.vlms import load_image_side, load_text_side

    simulate.require_slides(options.slides_per_class, options.shots)
    clip = options.output_dir / FEATURE_EXTRACTOR
    save_tiny_clip(clip, options.width, options.seed)
    tower = load_text_side(FEATURE_EXTRACTOR, str(clip))
    model = load_image_side(FEATURE_EXTRACTOR, str(clip)).identity()
    by_class = simulate.simulated_descriptions([f"SIMULATED_{letter}" for letter in "ABCDEFGH"[: options.classes]])
    texts = arrange_descriptions(by_class, list(by_class), 4, 3)
    torch.manual_seed(options.seed)
    with torch.no_grad():
        low, high = PromptLearner(tower, texts.low_texts, texts.high_texts, options.classes)()
    settings = SimulationSettings(**{item.name: getattr(options, item.name) for item in fields(SimulationSettings)})
    low, high = low.view(options.classes, 4, -1), high.view(options.classes, 4, 3, -1)
    simulator = simulate.SlideSimulator(low.numpy(), high.numpy(), settings)
    folders = FeatureFolders(options.output_dir / "features", TASK, FEATURE_EXTRACTOR)
    simulate.write_simulated_task(
        options.output_dir, folders, by_class, simulator, model, options.slides_per_class, options.shots,
        options.folds, options.seed,
    )  # fmt: skip
    print(f"simulated task in {options.output_dir}: {options.classes} classes, {options.slides_per_class} slides each")


if __name__ == "__main__":
    sys.exit(run_script(main))
