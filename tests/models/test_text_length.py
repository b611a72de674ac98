"""Lengths of descriptions, against the prompts that are really made of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.prompts import PromptTokens
from models.text_length import token_limit
from models.tiny_clip import save_tiny_clip
from models.vlms import TextSide, load_text_side
from tests.support.published_vlms import copy_golden_conch
from utils.errors import UserError


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> TextSide:
    folder = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder, width=16)
    return load_text_side("tiny", str(folder))


@pytest.fixture(scope="module")
def conch(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> TextSide:
    return load_text_side("conch", str(copy_golden_conch(golden, tmp_path_factory.mktemp("conch"))))


WORDS = st.lists(
    st.sampled_from(["nests", "of", "keratinized,", "pT1a", "(5x)", "sinusoidal", ":", "é", "hyaline"]), max_size=80
)


def check(limit: tuple[Callable[[str], int], int], tokens: PromptTokens, text: str, num_context: int) -> None:
    count, most = limit
    assert (count(text) > most) == bool(tokens.num_cut)
    if not tokens.num_cut:
        assert count(text) == int((tokens.token_ids != 0).sum()) - 2 - num_context, "0 is padding to both"


@settings(max_examples=40, deadline=None)
@given(words=WORDS, num_context=st.sampled_from([1, 5, 16, 60]), position=st.sampled_from(["end", "middle", "front"]))
def test_what_is_over_the_limit_is_what_the_prompt_cuts(
    clip: TextSide, words: list[str], num_context: int, position: str
) -> None:
    text = " ".join(["Term", *words])
    for tower in (None, clip):
        check(token_limit(tower, num_context), PromptTokens(clip, [text], num_context, position), text, num_context)


@settings(max_examples=40, deadline=None)
@given(words=WORDS, num_context=st.sampled_from([1, 16, 100]))
def test_conch_too(conch: TextSide, words: list[str], num_context: int) -> None:
    text = " ".join(["Term", *words])
    limit = token_limit(conch, num_context)
    assert limit[1] == 127 - 2 - num_context
    check(limit, PromptTokens(conch, [text], num_context, "end"), text, num_context)


@pytest.mark.parametrize("words", [58, 59, 60])
def test_clip_has_room_for_59_tokens_behind_16(clip: TextSide, words: int) -> None:
    for tower in (None, clip):
        count, most = token_limit(tower, 16)
        assert most == 59
        assert count(" ".join(["cell"] * words)) == words


def test_no_room_is_refused() -> None:
    assert token_limit(None, 74)[1] == 1
    with pytest.raises(UserError) as caught:
        token_limit(None, 75)
    (fault,) = caught.value.faults
    assert (fault.code, fault.where) == ("prompt.no_room", "--num_context_tokens 75")
    assert fault.expected.startswith("at most 74, the text tower reads 75 tokens")
