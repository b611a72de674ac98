"""CLIP's byte pair encoding: from a model's own folder, or the standard vocabulary where a folder brings none.

Padding is 0, as in OpenAI's tokenizer; it matters only to the released encoding.
"""

from pathlib import Path

import utils.torchvision_compat  # noqa: F401  (before transformers and open_clip)
from models.vlms.loading import first_line
from models.vlms.sides import Tokenizer
from utils.errors import Fault, UserError

CLIP_VOCABULARY = 49408
CLIP_ROOM = 75  # of its 77 tokens, those of start and end apart
CLIP_PADDING = 0


class FolderTokenizer:
    """The tokenizer of a Hugging Face folder or hub id. Raises UserError where its files cannot be read."""

    pad_id = CLIP_PADDING

    def __init__(self, source: Path | str):
        from transformers import AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(source)
        except Exception as error:  # each file format has exceptions of its own
            raise UserError(
                Fault(
                    "vlm.tokenizer",
                    str(source),
                    f"its tokenizer files cannot be loaded: {first_line(error)}",
                    mend="put the tokenizer files that were published with the model into the folder",
                )
            ) from error
        self.bos_id: int = self._tokenizer.bos_token_id
        self.eos_id: int = self._tokenizer.eos_token_id

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


class StandardTokenizer:
    """CLIP's standard vocabulary, as open_clip has it."""

    pad_id = CLIP_PADDING

    def __init__(self) -> None:
        from open_clip import SimpleTokenizer

        self._tokenizer = SimpleTokenizer()
        self.bos_id: int = self._tokenizer.sot_token_id
        self.eos_id: int = self._tokenizer.eot_token_id

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return [self._tokenizer.encode(text) for text in texts]


def clip_tokenizer(source: Path | str, vocabulary: int) -> Tokenizer:
    """The tokenizer of a CLIP model whose vocabulary has that many tokens.

    source: a Hugging Face folder or a hub id. Raises UserError where the folder has none and the standard one is not
    meant.
    """
    if has_tokenizer(source):
        return FolderTokenizer(source)
    if vocabulary == CLIP_VOCABULARY:
        return StandardTokenizer()
    raise UserError(
        Fault(
            "vlm.tokenizer",
            str(source),
            f"no tokenizer found, and a vocabulary of {vocabulary} is not CLIP's standard one ({CLIP_VOCABULARY})",
            mend="put tokenizer.json (or vocab.json and merges.txt) into the folder",
        )
    )


def has_tokenizer(source: Path | str) -> bool:
    """Whether a Hugging Face folder has tokenizer files; a hub id always has."""
    path = Path(source)
    return not path.is_dir() or (path / "tokenizer.json").exists() or (path / "vocab.json").exists()
