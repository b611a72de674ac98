"""Loads a golden case: what the released code returned for small random inputs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import conch.tokenizer
from datasets.bags import read_bag
from datasets.descriptions import read_descriptions
from datasets.folders import FeatureFolders
from datasets.task import read_slides
from models.build import build_model
from models.hive_mil import HiveMIL
from models.vlms import load_text_side
from utils.config import Config
from utils.interface import Bag


class GoldenCase:
    """A case's expected values, its slides in the order of its table, and the model from its checkpoint."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(conch.tokenizer, "HERE", folder.parent / "conch_tokenizer")
        self.folder = folder
        self.expected: dict[str, Any] = json.loads((folder / "expected.json").read_text())
        self.is_conch = (folder / "pytorch_model.bin").exists()
        self.extractor = "conch" if self.is_conch else "tinyclip"
        self.tower = load_text_side(
            self.extractor, str(folder / ("pytorch_model.bin" if self.is_conch else "tinyclip"))
        )
        settings = self.expected["settings"]
        counts = settings["num_low_mag_texts"], settings["num_high_mag_subtexts"]
        class_names, self.slides = read_slides(folder / "golden.csv")
        self.texts = read_descriptions(folder / "golden.json", class_names, *counts)
        self.class_names = class_names
        self.config = Config(
            task="golden", variant="released", contrastive_lambda=settings["contrastive_lambda"], seed=0
        )
        self.checkpoint = torch.load(folder / "s_0_checkpoint.pt", weights_only=True)

    def model(self, variant: str = "released") -> HiveMIL:
        """The model; for the released variant with the case's checkpoint."""
        config = Config(**{**self.config.to_dict(), "variant": variant})
        torch.manual_seed(0)
        model = build_model(config, self.tower, self.texts.low_texts, self.texts.high_texts, len(self.class_names))
        if variant == "released":
            model.load_checkpoint(self.checkpoint)
        return model.eval()

    def bags(self) -> list[Bag]:
        folders = FeatureFolders(self.folder, "golden", self.extractor)
        return [read_bag(folders, slide, self.tower.output_dim) for slide in self.slides.values()]
