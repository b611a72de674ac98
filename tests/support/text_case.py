"""Golden cases of the models with texts: their towers, and the official names of a tower's tensors."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import SHARED
from tests.support.baseline_case import BaselineCase, bag_of, read
from utils.interface import Bag

TOWER = "text_encoder."
OPENAI_NAMES = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "text_projection": "text_projection.weight",
    "ln_final": "text_model.final_layer_norm",
    "transformer.resblocks": "text_model.encoder.layers",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def find_tower(case_folder: Path, name: str) -> Path:
    """The text tower that case.json names: below one of the folders that hold the case, or below ../shared."""
    for folder in (*case_folder.resolve().parents, SHARED):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"the text tower {name} of the golden case is not here")


def hugging_face_names(name: str) -> list[str]:
    """A tensor of OpenAI's CLIP text tower -> its name in transformers; three where it stacks q, k and v."""
    for theirs, ours in OPENAI_NAMES.items():
        name = name.replace(theirs, ours)
    if "attn.in_proj_" in name:
        return [name.replace("attn.in_proj_", f"self_attn.{letter}_proj.") for letter in "qkv"]
    return [name]


class StoredTokens:
    """A tokenizer that knows the texts of a case."""

    def __init__(self, tokens: dict[str, list[int]], bos_id: int, eos_id: int):
        self.tokens, self.bos_id, self.eos_id, self.pad_id = tokens, bos_id, eos_id, eos_id

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Placeholders, which stand in front, get the id of the start."""
        return [
            [self.bos_id] * text.split(" ").count("X") + self.tokens.get(text.replace("X ", ""), []) for text in texts
        ]


class TextCase(BaselineCase):
    """A case with a text tower (``text_encoder.*``), which is not among the tensors that ``load`` reads."""

    def __init__(self, folder: Path, names: Mapping[str, str], unused: tuple[str, ...] = ()):
        super().__init__(folder, names, (TOWER, "prompt_learner.token_", *unused))

    def check_tower(self, tower: nn.Module) -> None:
        """The CLIP tower is the official one, tensor by tensor."""
        state = tower.state_dict()
        official = {name: value for name, value in read(self.folder / "weights.npz").items() if name.startswith(TOWER)}
        assert official
        for name, value in official.items():
            ours = torch.cat([state[part] for part in hugging_face_names(name.removeprefix(TOWER))])
            assert torch.equal(ours.t() if name == f"{TOWER}text_projection" else ours, value), name

    def two_scale_bags(self, low: str, high: str) -> list[Bag]:
        """low, high: names of the inputs, with {} for the bag's number."""
        return [
            bag_of(self.inputs[high.format(i)], label, self.inputs[low.format(i)])
            for i, label in enumerate(self.labels)
        ]

    def check_tower_gradients(self, tower: nn.Module, prefix: str = "") -> None:
        """Behind ``check_gradients``: the norms of the tower's."""
        parameters = dict(tower.named_parameters())
        start = f"{prefix}grad_norm/{TOWER}"
        for name in self.outputs:
            if name.startswith(start):
                gradients = [parameters[part].grad for part in hugging_face_names(name.removeprefix(start))]
                known = [gradient for gradient in gradients if gradient is not None]
                norm = torch.cat(known).norm() if known else -1.0
                self.check(name, norm, 1e-4)
