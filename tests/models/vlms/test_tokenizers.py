"""No tokenizer is guessed: files that are missing, damaged or another model's are faults, for every family."""

from collections.abc import Callable
from pathlib import Path

import pytest

from models.tiny_clip import save_tiny_clip
from models.vlms import load_image_side, load_text_side
from tests.support.damage import LFS_POINTER, change_json
from tests.support.golden_vlms import register_tiny_vit
from tests.support.published_other_vlms import (
    VIT,
    VOCABULARY,
    save_dual_encoder,
    save_keep,
    save_open_clip_bert,
    save_siglip,
)
from tests.support.published_vlms import save_clip_with_tokenizer, save_open_clip
from utils.errors import UserError

BERTS = {"open_clip with BERT": save_open_clip_bert, "KEEP": save_keep, "VisionTextDualEncoder": save_dual_encoder}
SAVES: dict[str, tuple[Callable[[Path], Path], str]] = {
    **{name: (save, "vocab.txt") for name, save in BERTS.items()},
    "SigLIP": (save_siglip, "spiece.model"),
}


@pytest.fixture(autouse=True)
def tiny_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny_vit(VIT, monkeypatch)


def no_words(file: Path) -> None:
    """What transformers makes a tokenizer of that knows no word."""
    file.write_text("\n".join(VOCABULARY[:5]) + "\n")


SPOILS: dict[str, Callable[[Path], object]] = {
    "absent": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "pointer": lambda file: file.write_bytes(LFS_POINTER),
    "other": lambda file: file.write_bytes(b"nothing of the kind"),
}


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("family", SAVES)
def test_a_tokenizer_that_is_missing_or_damaged(tmp_path: Path, family: str, spoil: str) -> None:
    save, name = SAVES[family]
    folder = save(tmp_path / "model")
    SPOILS[spoil](folder / name)
    with pytest.raises(UserError) as caught:
        load_text_side("any", str(folder))
    (fault,) = caught.value.faults
    assert fault.code == "vlm.tokenizer"
    assert fault.where == str(folder / name if spoil in ("empty", "pointer") else folder)
    assert fault.mend
    load_image_side("any", str(folder))  # which needs none


@pytest.mark.parametrize("words", [VOCABULARY[:5], VOCABULARY[: len(VOCABULARY) // 2], [*VOCABULARY, "more", "words"]])
@pytest.mark.parametrize("family", BERTS)
def test_a_vocabulary_of_another_size(tmp_path: Path, family: str, words: list[str]) -> None:
    folder = BERTS[family](tmp_path / "model")
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    with pytest.raises(UserError, match=f"has {len(words)} tokens, the text tower {len(VOCABULARY)}") as caught:
        load_text_side("any", str(folder))
    assert [fault.code for fault in caught.value.faults] == ["vlm.tokenizer"]


def test_the_vocabulary_of_bert_base_is_not_pubmed_berts(tmp_path: Path) -> None:
    """Both are as long; [CLS] is 101 in the former and 2 in the latter."""
    from transformers import BertConfig

    folder = save_open_clip_bert(tmp_path / "model")
    change_json(
        folder / "open_clip_config.json",
        lambda config: {
            "model_cfg": {
                **config["model_cfg"],
                "text_cfg": {**config["model_cfg"]["text_cfg"], "hf_model_name": "microsoft/BiomedNLP-PubMedBERT-base"},
            }
        },
    )
    load_text_side("any", str(folder))
    import torch

    file = folder / "open_clip_pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    rows = BertConfig().vocab_size // 100
    state["text.transformer.embeddings.word_embeddings.weight"] = torch.randn(rows, 16)
    torch.save(state, file)
    unused = [f"[unused{number}]" for number in range(99)]
    words = ["[PAD]", *unused, "[UNK]", "[CLS]", "[SEP]", "[MASK]", *VOCABULARY[5:]]
    (folder / "vocab.txt").write_text("\n".join([*words, *(f"w{n}" for n in range(rows - len(words)))][:rows]) + "\n")
    with pytest.raises(UserError, match="BERT base's, the model's is PubMedBERT's"):
        load_text_side("any", str(folder))


@pytest.mark.parametrize("save", [lambda folder: save_tiny_clip(folder, width=16), save_open_clip])
def test_clip_without_tokenizer_files_has_its_standard_one(tmp_path: Path, save: Callable[[Path], object]) -> None:
    save(tmp_path / "model")
    texts = ["Mitoses : frequent.", "pale cytoplasm"]
    expected = load_text_side("any", str(save_clip_with_tokenizer(tmp_path / "clip"))).tokenize(texts)
    assert load_text_side("any", str(tmp_path / "model")).tokenize(texts) == expected
    assert expected[0] != expected[1]


def test_siglip_has_no_start_and_the_end_token_fills(tmp_path: Path) -> None:
    side = load_text_side("any", str(save_siglip(tmp_path / "model")))
    assert side.special_tokens.start is None
    assert (side.special_tokens.end, side.context_length, side.room) == (1, 32, 31)
    assert side.unknown_token == 2
