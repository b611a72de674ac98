"""CONCH's tokenizer: byte-level BPE, uncased words apart, read from the file that comes with CONCH.

The file is CONCH's own (CC-BY-NC-ND 4.0) and is not part of this project.
"""

import sys
from pathlib import Path

TOKENIZER_FILE = "conch_byte_level_bpe_uncased.json"
HERE = Path(__file__).resolve().parent


def find_tokenizer_file(beside: Path | None = None) -> Path | None:
    """The tokenizer file in this folder, beside the weights, or inside an installed CONCH package; else None."""
    folders = [HERE] + ([beside] if beside else [])
    # this folder hides an installed package of the same name from imports, so look for the file itself
    folders += [Path(entry) / "conch" / "open_clip_custom" / "tokenizers" for entry in sys.path if entry]
    candidates = [folder / TOKENIZER_FILE for folder in folders]
    return next((path for path in candidates if path.is_file()), None)


class ConchTokenizer:
    """Texts to token ids, as CONCH does.

    The file asks for a space in front of the first word; CONCH was trained and published with a library version that
    put none, so it is switched off here.
    """

    bos_id, eos_id, pad_id = 1, 2, 0

    def __init__(self, file: Path):
        from tokenizers import Tokenizer
        from tokenizers.pre_tokenizers import ByteLevel

        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=False)]
