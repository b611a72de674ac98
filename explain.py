"""Explain predictions: for each slide a page of heat maps, patches and texts, its scores as tables, and for QuPath."""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config import Config, add_option, add_options, at_least
from utils.errors import Faults, UserError, run_script

if TYPE_CHECKING:
    import torch

    from datasets.descriptions import Descriptions
    from datasets.layout import FeatureFolders
    from datasets.task import Slide
    from models.hive_mil import HiveMIL
    from utils.interface import Bag
    from utils.slide_report import SlideReport

OWN = ("checkpoint", "slide", "split", "output_dir", "wsi_dir", "top", "draws")
CHECKPOINT = re.compile(r"s_(\d+)_checkpoint\.pt")
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
    return namespace, {name: value for name, value in vars(namespace).items() if name not in OWN}


# ---- the run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """Trained models of a run by fold, on ``device``, and what they were trained on. parts: fold -> {slide_id: train,
    val or test}, of the folds whose split file lies beside the checkpoint."""

    name: str
    config: Config
    class_names: list[str]
    texts: "Descriptions"
    folders: "FeatureFolders"
    slides: "Mapping[str, Slide]"
    models: "Mapping[str, HiveMIL]"
    parts: Mapping[str, Mapping[str, str]]
    device: "torch.device"

    def slide(self, slide_id: str) -> "Slide":
        """A slide that is not in the table has no label."""
        from datasets.task import Slide

        return self.slides.get(slide_id) or Slide(slide_id, slide_id)


def load_run(checkpoints: Sequence[Path], given: Mapping[str, Any]) -> Run:
    """Load the checkpoints of a run's folds. given: options of main.py, in place of those in the config.json beside
    them, or, for bare checkpoints, all there are. Raises UserError with all faults."""
    from datasets.layout import FeatureFolders
    from datasets.model_texts import arrange_texts, read_texts
    from datasets.splits import read_split_ids
    from datasets.task import read_labels, read_slides
    from models.build import build_model
    from models.hive_mil import HiveMIL
    from models.text_towers import load_text_tower
    from utils.files import read_tensors, tensors_sha256
    from utils.reproducibility import choose_device
    from utils.run_record import config_of, read_record

    faults = Faults()
    folder = checkpoints[0].parent
    names = [f"fold {match[1]}" if (match := CHECKPOINT.fullmatch(file.name)) else file.stem for file in checkpoints]
    if len({file.parent.resolve() for file in checkpoints}) > 1 or len(set(names)) < len(names):
        raise UserError(f"--checkpoint {' '.join(map(str, checkpoints))}: expected different folds of one run's folder")
    saved: list[Any] = [faults.attempt(read_tensors, file) for file in checkpoints]
    record = faults.attempt(read_record, checkpoints[0], given)
    faults.raise_any()
    config = config_of(record, given)
    if config.model_type != "HiVE_MIL":
        raise UserError(f"{folder}: the run of a {config.model_type} model; expected one of --model_type HiVE_MIL")
    device = choose_device(config.device)
    tower = faults.attempt(load_text_tower, config.feature_extractor, config.vlm_path)
    if tower and record and tensors_sha256(tower.state_dict()) != record["inputs"]["text_tower"]:
        faults.add(f"--vlm_path {config.vlm_path}: not the vision-language model that the checkpoint was trained with")
    if record:
        texts, class_names = faults.attempt(arrange_texts, config, "HiVE_MIL", record), record["class_names"]
    else:
        labels = faults.attempt(read_labels, config.csv_path()) or []
        texts = faults.attempt(read_texts, config, "HiVE_MIL", labels if len(labels) > 1 else None)
        class_names = list(texts.by_class) if texts else []
    table = faults.attempt(read_slides, config.csv_path(), class_names) if class_names else None
    faults.raise_any()
    assert tower and texts and table
    models, parts = {}, {}
    for name, file, tensors in zip(names, checkpoints, saved, strict=True):
        model = build_model(config, tower, texts.low_texts, texts.high_texts, len(class_names))
        assert isinstance(model, HiveMIL)
        try:
            model.load_checkpoint(tensors)
        except ValueError as error:
            raise UserError(f"{file}: does not fit --variant {config.variant} and its options: {error}") from error
        models[name] = model.to(device).eval()
        split = folder / f"splits_{name.removeprefix('fold ')}.csv"
        if split.is_file():
            parts[name] = {slide_id: part for part, ids in read_split_ids(split).items() for slide_id in ids}
    folders = FeatureFolders(
        Path(config.data_root_dir), config.task, config.feature_extractor, config.low_mag, config.high_mag
    )
    return Run(folder.resolve().name, config, class_names, texts, folders, table[1], models, parts, device)


# ---- a slide ---------------------------------------------------------------------------------------------------------


def choose_slides(run: Run, slide_ids: Sequence[str] | None, split: str | None) -> dict[str, list[str]]:
    """{slide_id: folds that explain it}: all folds for a slide that was named, those that have it in ``split`` else."""
    if slide_ids:
        return {slide_id: list(run.models) for slide_id in slide_ids}
    unknown = [fold for fold in run.models if fold not in run.parts]
    if unknown:
        raise UserError(f"--split {split}: no splits_<fold>.csv beside the checkpoint of {', '.join(unknown)}; name "
                        "slides with --slide")  # fmt: skip
    found: dict[str, list[str]] = {}
    for fold, parts in run.parts.items():
        for slide_id, part in parts.items():
            if part == split:
                found.setdefault(slide_id, []).append(fold)
    return found


def explain_slide(
    run: Run, slide_id: str, folds: Sequence[str], draws: int = 0, file: Path | None = None
) -> "SlideReport":
    """Explain a slide by the models of some folds. draws: removals at random, 0 for none at all. file: the slide's, for
    the size of its pixels."""
    import numpy as np

    from datasets.bags import read_bag
    from datasets.feature_layouts import read_level0_magnifications
    from datasets.slide_pixels import size_of_pixels, sizes_of_patches
    from models.explain import explain
    from utils.evaluation import autocast
    from utils.explanation import mean_explanation
    from utils.faithfulness import removal_curve
    from utils.slide_report import FoldOutcome, Scale, SlideReport, text_names

    slide, texts, config = run.slide(slide_id), run.texts, run.config
    bag = read_bag(run.folders, slide, run.models[folds[0]].prompts.tower.output_dim)
    level0 = read_level0_magnifications(config.csv_path()).get(slide_id)
    sizes = sizes_of_patches(run.folders, bag, level0)
    on_device = bag.to(run.device)
    with autocast(run.device, config.precision):
        by_fold = {fold: explain(run.models[fold], on_device) for fold in folds}
    explanation = mean_explanation(list(by_fold.values()))
    outcomes = [
        FoldOutcome(fold, run.parts.get(fold, {}).get(slide_id, ""), found.probabilities, found.hit_ratio)
        for fold, found in by_fold.items()
    ]
    names = text_names(run.class_names, config.num_low_mag_texts, config.num_high_mag_subtexts)
    assert bag.low_coords is not None and bag.high_coords is not None
    low_coords, high_coords, is_child = bag.low_coords.numpy(), bag.high_coords.numpy(), bag.child_mask.numpy()
    is_parent = np.ones(len(low_coords), dtype=bool)
    report = SlideReport(
        slide_id,
        run.class_names,
        slide.label,
        outcomes,
        explanation,
        Scale(config.low_mag, low_coords, sizes.parent, is_parent, texts.low_texts, names[0], explanation.low),
        Scale(config.high_mag, high_coords, sizes.child, is_child, texts.high_texts, names[1], explanation.high),
        pixel=size_of_pixels(run.folders, slide_id, level0, file),
    )
    if not draws:
        return report
    scores = report.low.class_scores[:, report.prediction]
    probability = partial(mean_probability, run, folds, report.prediction)
    return replace(report, removal=removal_curve(on_device, scores, probability, draws))


def mean_probability(run: Run, folds: Sequence[str], label: int, bag: "Bag") -> float:
    """Of a class, over the folds."""
    import torch

    from utils.evaluation import autocast

    with torch.no_grad(), autocast(run.device, run.config.precision):
        logits = torch.stack([run.models[fold](bag).logits.double() for fold in folds])
    return float(logits.softmax(1)[:, label].mean())


def write_report(report: "SlideReport", folder: Path, run_name: str, top: int) -> list[Path]:
    """Write a slide's tables, its patches for QuPath, and last its page; returns the files."""
    from utils.explanation_page import render_explanation
    from utils.files import write_text
    from utils.geojson import feature_collection
    from utils.score_tables import patch_table, removal_table, text_table

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

    if options.output_dir.is_file():
        raise UserError(f"--output-dir {options.output_dir}: is a file, expected a folder")
    faults = Faults()
    run = load_run(options.checkpoint, given)
    chosen = choose_slides(run, options.slide, options.split)
    files = find_slides(options.wsi_dir, list(chosen)) if options.wsi_dir else {}
    for slide_id, folds in tqdm(chosen.items(), desc="explaining", unit="slide", disable=None):
        report = faults.attempt(explain_slide, run, slide_id, folds, options.draws, files.get(slide_id))
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
