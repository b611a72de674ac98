"""Tokenizers of vision-language models: read from a model's own files, or CLIP's standard one where it is known to fit.

No tokenizer is guessed. transformers makes one without vocabulary of a folder that has none, which gives every text the
same ids and raises nothing; so the files are looked for first, and what they give is tried.

CLIP's padding is 0, as in OpenAI's tokenizer; it matters only to the released encoding.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import utils.torchvision_compat  # noqa: F401  (before transformers and open_clip)
from models.vlms.loading import check_file, first_line, quiet
from models.vlms.sides import Tokenizer
from utils.errors import Fault, UserError

CLIP_VOCABULARY = 49408
CLIP_ROOM = 75  # of its 77 tokens, those of start and end apart
CLIP_PADDING = 0
BPE_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # whole sets
BERT_FILES = (("tokenizer.json",), ("vocab.txt",))
SENTENCEPIECE_FILES = (("tokenizer.json",), ("spiece.model",))
ANY_FILES = tuple(dict.fromkeys((*BPE_FILES, *BERT_FILES, *SENTENCEPIECE_FILES)))
LEAST_SHARE = 0.9  # of a text tower's vocabulary that a tokenizer has
PROBES = ["Pale cytoplasm with prominent nucleoli", "adenocarcinoma of the lung, 20x"]
HOW_TO_MEND = "put the tokenizer files that were published with the model into its folder"

FileSets = Sequence[Sequence[str]]


class FolderTokenizer:
    """The tokenizer of a model's folder, by transformers. Raises UserError where its files cannot be read.

    padding: None is the tokenizer's own.
    """

    def __init__(self, folder: Path, padding: int | None = None):
        from transformers import AutoTokenizer

        try:
            with quiet():
                self._tokenizer: Any = AutoTokenizer.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
            bare, whole = self._ids("cell"), self._ids("cell", special=True)
        except Exception as error:  # each file format has exceptions of its own
            raise _fault(folder, f"its tokenizer files cannot be loaded: {first_line(error)}") from error
        place = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), None)
        if not bare or place is None or place > 1 or len(whole) == place + len(bare):
            raise _fault(folder, f"its tokenizer makes {whole} of a word that is {bare} by itself")
        self.bos_id = whole[0] if place else None
        self.eos_id = whole[place + len(bare)]
        own: int | None = self._tokenizer.pad_token_id
        self.pad_id = (self.eos_id if own is None else own) if padding is None else padding
        self.unk_id: int | None = self._tokenizer.unk_token_id
        self.size = len(self._tokenizer)

    def _ids(self, text: str, special: bool = False) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return [self._ids(text) for text in texts]


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


def clip_tokenizer(folder: Path, vocabulary: int) -> Tokenizer:
    """The tokenizer of a CLIP model whose vocabulary has that many tokens.

    Raises UserError where the folder has none and the standard one is not meant, and where the folder's files are
    damaged: a vocabulary of CLIP's size is CLIP's.
    """
    if find_files(folder, BPE_FILES) is None:
        if vocabulary == CLIP_VOCABULARY and not _begun(folder, BPE_FILES):
            return StandardTokenizer()
        why = f"and a vocabulary of {vocabulary} is not CLIP's standard one ({CLIP_VOCABULARY})"
        raise _fault(folder, _absent(folder, BPE_FILES) + (f", {why}" if vocabulary != CLIP_VOCABULARY else ""))
    tokenizer = FolderTokenizer(folder, CLIP_PADDING)
    _check_size(folder, tokenizer, vocabulary)
    if vocabulary == CLIP_VOCABULARY:
        standard = StandardTokenizer()
        for probe in PROBES:
            found, expected = tokenizer.encode([probe])[0], standard.encode([probe])[0]
            if found != expected:
                raise _fault(folder, f"its tokenizer makes {found} of {probe!r}, CLIP's standard one {expected}")
    return tokenizer


def own_tokenizer(folder: Path, vocabulary: int, files: FileSets = ANY_FILES) -> FolderTokenizer:
    """The tokenizer of a model of another family, which is nowhere but in its folder.

    vocabulary: rows of the text tower's table. files: the sets of files of which one must be there. Raises UserError
    where none is, and where it does not fit the tower.
    """
    if find_files(folder, files) is None:
        raise _fault(folder, _absent(folder, files))
    tokenizer = FolderTokenizer(folder)
    _check_size(folder, tokenizer, vocabulary)
    return tokenizer


def find_files(folder: Path, sets: FileSets) -> Sequence[str] | None:
    """The first set whose files are all there. Raises UserError where one of them is empty or a git-lfs pointer."""
    found = next((names for names in sets if all((folder / name).is_file() for name in names)), None)
    for name in found or ():
        check_file(folder / name, "vlm.tokenizer")
    return found


def _begun(folder: Path, sets: FileSets) -> list[str]:
    return [name for names in sets for name in names if (folder / name).is_file()]


def _absent(folder: Path, sets: FileSets) -> str:
    wanted = " or ".join(" and ".join(names) for names in sets)
    begun = ", ".join(_begun(folder, sets))
    return f"no tokenizer found: {wanted} is needed" + (f", only {begun} is there" if begun else "")


def _check_size(folder: Path, tokenizer: FolderTokenizer, vocabulary: int) -> None:
    if not vocabulary * LEAST_SHARE <= tokenizer.size <= vocabulary:
        raise _fault(folder, f"its tokenizer has {tokenizer.size} tokens, the text tower {vocabulary}")
    first, second = tokenizer.encode(PROBES)
    if first == second:
        raise _fault(folder, f"its tokenizer gives different texts the same tokens ({first})")


def _fault(folder: Path, found: str) -> UserError:
    return UserError(Fault("vlm.tokenizer", str(folder), found, mend=HOW_TO_MEND))
