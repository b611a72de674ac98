"""Descriptions that a tokenizer writes alike or does not know are refused before anything is trained."""

import pytest
import torch

from models.build import build_model
from models.class_separation import encode_texts
from models.prompts import PromptTokens
from models.vlms import TextSide
from tests.support.random_towers import WordTokenizer, random_clip_tower
from utils.config import Config
from utils.errors import UserError

UNKNOWN = 7


class Known(WordTokenizer):
    """Knows words that begin with a letter up to m; no others, and no punctuation."""

    unk_id = UNKNOWN

    def encode(self, texts: list[str]) -> list[list[int]]:
        words = [[word.strip(".,").lower() for word in text.split()] for text in texts]
        return [
            [100 + sum(map(ord, word)) % 150 if word[0] <= "m" or word == "x" else UNKNOWN for word in row if word]
            for row in words
        ]


class Deaf(WordTokenizer):
    """What transformers makes of a folder without vocabulary: the same ids for every text."""

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[2] * (1 + text.count("X ")) for text in texts]


def tower(tokenizer: WordTokenizer) -> TextSide:
    side = random_clip_tower()
    side.tokenizer = tokenizer
    return side


def codes(tokenizer: WordTokenizer, texts: list[str], num_context_tokens: int = 4) -> list[str]:
    try:
        PromptTokens(tower(tokenizer), texts, num_context_tokens, "end")
    except UserError as error:
        return [fault.code for fault in error.faults]
    return []


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["cells", "dark glands"], []),
        (["cells", "cells"], []),
        (["Clear  cells", "clear cells"], []),
        (["clear\u00a0cells", "clear cells"], []),
        (["cells.", "cells"], ["prompt.alike"]),
        (["cells", "a b", "cells ,"], ["prompt.alike"]),
        (["zebra", "cells"], ["prompt.unknown_words"]),
        (["zebra cells", "cells"], []),
        (["zebra yak cells", "cells"], ["prompt.unknown_words"]),
        (["zebra dark cells", "cells"], []),
        (["...", "cells"], ["prompt.unknown_words"]),
        (["zebra", "yak"], ["prompt.alike", "prompt.unknown_words"]),
        ([""], []),
    ],
)
@pytest.mark.parametrize("num_context_tokens", [0, 4])
def test_what_the_tokenizer_cannot_tell(texts: list[str], expected: list[str], num_context_tokens: int) -> None:
    assert codes(Known(), texts, num_context_tokens) == expected


def test_a_fault_quotes_and_counts() -> None:
    with pytest.raises(UserError) as caught:
        PromptTokens(tower(Known()), ["cells.", "cells", "zebra", "yak", "zebra"], 4, "end")
    alike, unknown = caught.value.faults
    assert alike.found.startswith("4 different descriptions") and "'cells.' and 'cells'" in alike.found
    assert unknown.found.startswith("2 descriptions") and "'zebra'" in unknown.found
    assert alike.mend and unknown.mend


@pytest.mark.parametrize("model_type", ["HiVE_MIL", "ViLa_MIL", "FOCUS", "MSCPT"])
def test_no_model_is_built_on_a_tokenizer_without_vocabulary(model_type: str) -> None:
    low, high = (["a", "b"], ["c", "d"]) if model_type != "FOCUS" else ([], ["c", "d"])
    with pytest.raises(UserError) as caught:
        build_model(Config(model_type=model_type, num_context_tokens=3), tower(Deaf()), low, high, 2)
    assert {fault.code for fault in caught.value.faults} == {"prompt.alike"}


def test_the_report_of_class_separation_refuses_them() -> None:
    with pytest.raises(UserError) as caught:
        encode_texts(tower(Deaf()), ["a", "b"])
    assert [fault.code for fault in caught.value.faults] == ["prompt.alike"]
    features, _ = encode_texts(tower(Known()), ["clear cells", "dark glands"])
    assert not torch.allclose(features[0], features[1])
