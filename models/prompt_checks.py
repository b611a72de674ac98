"""Descriptions that a tokenizer cannot read: two that it writes alike, or one made mostly of words it does not know."""

import unicodedata
from collections.abc import Sequence

from models.vlms import TextSide
from utils.errors import Fault, UserError

MOST_UNKNOWN = 0.5  # of a text's tokens
LONGEST_SHOWN = 60
HOW_TO_MEND = (
    "put the tokenizer files that were published with the model into its folder, or write the descriptions in the "
    "words and letters that the model knows"
)


def check_texts(tower: TextSide, texts: Sequence[str], token_ids: Sequence[Sequence[int]]) -> None:
    """Raises UserError where two different texts have the same tokens, and where most tokens of a text stand for what
    the vocabulary lacks, or a text has none. Texts that differ in capitals, blanks or Unicode's form alone are no
    different ones.

    token_ids: of the texts, without special tokens.
    """
    faults = []
    same: dict[tuple[int, ...], dict[str, str]] = {}
    for text, ids in zip(texts, token_ids, strict=True):
        same.setdefault(tuple(ids), {}).setdefault(_plain(text), text)
    alike = [[*by_form.values()] for by_form in same.values() if len(by_form) > 1]
    if alike:
        shown = " and ".join(_quoted(text) for text in alike[0][:2])
        count = sum(len(group) for group in alike)
        faults.append(
            Fault(
                "prompt.alike",
                str(tower.origin.told or "the tokenizer"),
                f"{count} different descriptions have the tokens of another one, as {shown}",
                expected="different tokens for different descriptions",
                mend=HOW_TO_MEND,
            )
        )
    unknown = tower.unknown_token
    strange = [text for text, ids in zip(texts, token_ids, strict=True) if _is_strange(text, ids, unknown)]
    if strange:
        faults.append(
            Fault(
                "prompt.unknown_words",
                str(tower.origin.told or "the tokenizer"),
                f"{len({*strange})} descriptions are mostly unknown to the tokenizer, as {_quoted(strange[0])}",
                expected="descriptions whose words or letters its vocabulary has",
                mend=HOW_TO_MEND,
            )
        )
    if faults:
        raise UserError(faults)


def _is_strange(text: str, ids: Sequence[int], unknown: int | None) -> bool:
    num_unknown = sum(token == unknown for token in ids)
    return num_unknown > MOST_UNKNOWN * len(ids) or (not ids and bool(text.strip()))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _quoted(text: str) -> str:
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}...")
