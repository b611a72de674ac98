"""A text side that offers no more than it must: no start token, no prefix tree, no reading of the released code."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models.build import build_model
from models.prompts import PromptLearner, PromptTokens
from models.vlms import TextSide
from models.vlms.prefix_tree import PrefixTree
from tests.support.random_slide import random_bag
from tests.support.random_towers import VOCABULARY, WordTokenizer
from utils.config import Config
from utils.errors import UserError


class NoStart(WordTokenizer):
    bos_id = None


class WordSums(TextSide):
    """The sum of a text's embeddings, its end token's among them."""

    def __init__(self) -> None:
        super().__init__(NoStart(), torch.tensor(2.0), context_length=40, width=6, output_dim=6)
        table = torch.randn(VOCABULARY, 6, generator=torch.Generator().manual_seed(0))
        self.table = nn.Embedding.from_pretrained(table)

    @property
    def token_embedding(self) -> nn.Module:
        return self.table

    def encode_prompts(self, embeddings: Tensor, token_ids: Tensor, tree: PrefixTree | None = None) -> Tensor:
        assert tree is None
        return (embeddings * (token_ids != self.special_tokens.padding).unsqueeze(-1)).sum(1)


@pytest.fixture
def side() -> TextSide:
    return WordSums().requires_grad_(False).eval()


@pytest.mark.parametrize(("position", "places"), [("end", [0, 1, 2]), ("middle", [0, 4, 5]), ("front", [3, 4, 5])])
def test_prompts_without_a_start_token(side: TextSide, position: str, places: list[int]) -> None:
    tokens = PromptTokens(side, ["a b c", "d " * 50], 3, position)
    (x, *words), (start, end, padding) = side.tokenize(["X a b c"])[0], side.special_tokens
    row = [*[x] * 3, *words, end, *[padding] * 33]
    others = [place for place in range(6) if place not in places]
    for place, word in zip([*places, *others], [x, x, x, *words], strict=True):
        row[place] = word
    assert (start, side.room, side.context_length) == (None, 39, 40)
    assert tokens.token_ids[0].tolist() == row
    assert tokens.context_positions[0].tolist() == places
    assert tokens.num_cut == 1 and int(tokens.token_ids[1, -1]) == end


def test_a_model_is_trained_with_it(side: TextSide) -> None:
    config = Config(num_context_tokens=3)
    model = build_model(config, side, ["ab", "cd"], ["efg", "hij"], 2).train()
    bag = random_bag(0, dim=6)
    loss = model(replace(bag, low_features=bag.low_features.float(), high_features=bag.high_features.float())).loss
    assert loss is not None
    loss.backward()
    prompts = model.prompts
    assert isinstance(prompts, PromptLearner)
    assert prompts.context.grad is not None and (prompts.context.grad.abs().sum((1, 2)) > 0).all()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"variant": "released"}, "vlm.not_released"),
        ({"model_type": "ViLa_MIL", "variant": "released"}, "vlm.not_released"),
        ({"model_type": "MSCPT"}, "vlm.no_deep_prompts"),
    ],
)
def test_what_such_a_tower_cannot_do_is_a_fault(side: TextSide, options: dict[str, str], code: str) -> None:
    with pytest.raises(UserError) as caught:
        build_model(Config(num_context_tokens=3, **options), side, ["ab", "cd"], ["efg", "hij"], 2)
    assert [fault.code for fault in caught.value.faults] == [code]
