"""Predict slides with trained checkpoints of main.py, or with a bare one (of the released code, say)."""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.arguments import add_option, add_options
from utils.config import OPTIONS, PROJECT
from utils.effects import FREE
from utils.errors import UserError, run_script

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from training.inputs import TrainedRun

BESIDE = ("metrics.json", "roc.png", "confusion.png", "calibration.png")  # written of labelled slides
SLIDES_A_CHUNK = 32  # after which finished ones are written down


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Checkpoints, output and slides, and the options of main.py that were given."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Settings come from config.json beside the checkpoint; without one, from main.py's options below. With "
        "--resume, slides that an interrupted call had finished are kept.",
        allow_abbrev=False,
    )
    add_option(
        parser, "checkpoint", type=Path, nargs="+", required=True, metavar="FILE",
        help="s_<fold>_checkpoint.pt; the probabilities of several folds of a run are averaged",
    )  # fmt: skip
    add_option(parser, "output", type=Path, default=Path("predictions.csv"), help="CSV to write")
    add_option(
        parser, "wsi-dir", type=Path,
        help="predict the slides in this folder; extract_features.py makes their features first, in --data_root_dir",
    )  # fmt: skip
    add_options(parser.add_argument_group("options of main.py"))
    namespace = parser.parse_args(argv)
    return namespace, {name: value for name, value in vars(namespace).items() if name in OPTIONS}


def extract(checkpoint: Path, given: dict[str, Any], wsi_dir: Path) -> list[str]:
    """Make the features of the slides in a folder that have none yet; returns their ids. Raises UserError where that
    fails."""
    from datasets.slides import find_slides
    from training.run_record import config_of, read_record

    config = config_of(read_record(checkpoint, given), given)
    slide_ids = list(find_slides(wsi_dir))
    command = [
        *(sys.executable, str(PROJECT / "extract_features.py"), "--wsi-dir", str(wsi_dir)),
        *("--dataset-root-path", config.data_root_dir, "--dataset-name", config.task),
        *("--feature-extractor-name", config.feature_extractor),
        *("--low-mag", str(config.low_mag), "--high-mag", str(config.high_mag)),
        *(["--vlm-path", config.vlm_path] if config.vlm_path else []),
        *(["--device", config.device] if config.device else []),
    ]
    if subprocess.run(command).returncode:
        raise UserError(f"--wsi-dir {wsi_dir}: not all features could be made, see above; finished slides are kept")
    return slide_ids


def fingerprint(run: "TrainedRun") -> str:
    """Tells whether predictions come from the same models: weights, options, classes and their texts."""
    from utils.files import tensors_sha256, text_sha256

    weights = [tensors_sha256(model.checkpoint()) for model in run.models.values()]
    options = {name: value for name, value in run.config.to_dict().items() if name not in FREE - {"precision"}}
    return text_sha256(json.dumps([weights, options, run.class_names, run.descriptions.by_class]))


def predict_slides(run: "TrainedRun", kept: Path, resume: bool) -> "np.ndarray":
    """Probabilities (slides, folds, K), in the order of the run's slides. Finished slides are written to ``kept``,
    from where ``resume`` takes those whose features are the same. Raises UserError where that file comes from other
    models."""
    import numpy as np

    from datasets.bag_cache import BagLoader
    from training.evaluation import evaluate
    from utils.files import read_json, write_json

    made_by, done = fingerprint(run), {}
    if resume and kept.exists():
        before = read_json(kept)
        if not isinstance(before, dict) or before.get("made_by") != made_by:
            raise UserError(f"{kept}: not of these checkpoints; remove it, or predict without --resume")
        kept_slides = before["slides"].items()
        done = {name: entry for name, entry in kept_slides if run.digests.get(name) == entry["features"]}
    open_slides = [slide for slide in run.slides.values() if slide.slide_id not in done]
    for start in range(0, len(open_slides), SLIDES_A_CHUNK):
        chunk = open_slides[start : start + SLIDES_A_CHUNK]
        run.cache.prefer(chunk)
        bags = BagLoader(run.cache, chunk, threads=run.config.num_workers, pin=run.device.type == "cuda")
        found = [evaluate(model, bags, run.device, run.config.precision) for model in run.models.values()]
        by_slide = np.stack([fold.probabilities for fold in found], axis=1)
        for slide, probabilities in zip(chunk, by_slide.tolist(), strict=True):
            done[slide.slide_id] = {"features": run.digests[slide.slide_id], "probabilities": probabilities}
        write_json(kept, {"made_by": made_by, "slides": done})
    return np.array([done[slide_id]["probabilities"] for slide_id in run.slides])


def spread(table: "pd.DataFrame", by_fold: "np.ndarray", class_names: Sequence[str]) -> "pd.DataFrame":
    """The table with the standard deviation of each class's probability over the folds, where there are several."""
    if by_fold.shape[1] == 1:
        return table
    deviations = by_fold.std(axis=1)
    return table.assign(**{f"std_{name}": deviations[:, k] for k, name in enumerate(class_names)})


def warn_of_seen(run: "TrainedRun") -> None:
    """Tell of slides that the checkpoints were trained or chosen with: metrics over them are too good."""
    seen = {slide_id for parts in run.parts.values() for slide_id, part in parts.items() if part != "test"}
    if known := seen & set(run.slides):
        print(
            f"warning: {len(known)} of {len(run.slides)} slides were training or validation slides of these "
            "checkpoints; metrics over them say nothing of new slides (the run's results.csv does)"
        )


def write_metrics(output: Path, labels: "np.ndarray", probabilities: "np.ndarray", class_names: list[str]) -> None:
    """Metrics and plots of labelled slides, in files named after the output."""
    from reports.plots import confusion_figure, reliability_figure, roc_figure, save_png
    from training.metrics import classification_metrics
    from utils.files import write_json

    predicted = probabilities.argmax(1)
    metrics = classification_metrics(labels, probabilities)
    print(f"{(predicted == labels).sum()} of {len(labels)} labelled slides are predicted as labelled")
    print(f"auc {metrics.auc:.4f}  f1 {metrics.f1:.4f}  acc {metrics.acc:.4f}")
    known = {name: value if value == value else None for name, value in metrics._asdict().items()}
    write_json(output.with_name(f"{output.stem}_metrics.json"), {"slides": len(labels), **known})
    figures = {
        "roc": roc_figure(labels, probabilities, class_names),
        "confusion": confusion_figure(labels, predicted, class_names),
        "calibration": reliability_figure(labels, probabilities),
    }
    for name, figure in figures.items():
        save_png(figure, output.with_name(f"{output.stem}_{name}.png"))


def main(argv: Sequence[str] | None = None) -> None:
    options, given = parse(argv)
    output: Path = options.output
    import numpy as np

    from datasets.task import NO_LABEL
    from training.evaluation import Predictions
    from training.inputs import load_run
    from utils.files import write_text

    if output.is_dir():
        raise UserError(f"--output {output}: is a folder, expected the name of a CSV file")
    slide_ids = extract(options.checkpoint[0], given, options.wsi_dir) if options.wsi_dir else None
    run = load_run(options.checkpoint, given, slide_ids)
    print(f"classes: {', '.join(run.class_names)}")
    warn_of_seen(run)
    if run.config.dry_run:
        print("dry run: all checks passed")
        return
    kept = output.with_name(f".{output.name}.partial.json")
    by_fold = predict_slides(run, kept, bool(given.get("resume")))
    labels = np.array([slide.label for slide in run.slides.values()], dtype=np.int64)
    predictions = Predictions(list(run.slides), labels, by_fold.mean(axis=1), float("nan"), float("nan"))
    table = spread(predictions.table(run.class_names), by_fold, run.class_names)
    for name in BESIDE:
        output.with_name(f"{output.stem}_{name}").unlink(missing_ok=True)
    write_text(output, table.to_csv(index=False))
    labelled = labels != NO_LABEL
    if labelled.any():
        write_metrics(output, labels[labelled], predictions.probabilities[labelled], run.class_names)
    kept.unlink()
    print(f"{len(run.slides)} slides in {output}")


if __name__ == "__main__":
    sys.exit(run_script(main))
