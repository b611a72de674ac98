"""Frozen text towers: CLIP's through transformers, CONCH's from conch/. Both offer the same four things.

``tokenize`` (texts -> ids without special tokens), ``special_tokens``, ``embed`` (ids -> token embeddings without
positions) and ``encode`` (token embeddings -> text features, as the vision-language model publishes it).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import utils.torchvision_compat  # noqa: F401  (before transformers)
from conch.text_tower import ConchTextTower
from conch.text_tower import load_text_tower as load_conch_text_tower
from conch.tokenizer import TOKENIZER_FILE, find_tokenizer_file
from conch.transformer import Block, PrefixTree, last_states
from models.clip_loading import first_line, loading_clip
from utils.errors import UserError

PUBLISHED_VLMS = {"plip": "vinid/plip", "quiltnet": "wisdomik/QuiltNet-B-32"}
CONCH_WEIGHTS = Path(__file__).resolve().parent.parent / "conch" / "pytorch_model.bin"
CLIP_VOCAB_SIZE = 49408
QUICK_GELU = 1.702  # CLIP's activation: x sigmoid(1.702 x)


class ClipTextTower(nn.Module):
    """The text side of a transformers CLIPModel.

    Sizes: W the tower's width, L at most ``context_length`` (77), D ``output_dim``.
    """

    logit_scale: Tensor

    def __init__(self, clip: Any, tokenizer: "ClipTokenizer"):
        super().__init__()
        self.text_model: Any = clip.text_model
        self.text_projection: Any = clip.text_projection
        self.tokenizer = tokenizer
        self.register_buffer("logit_scale", clip.logit_scale.detach().clone().float())
        text_config = clip.config.text_config
        self.context_length: int = text_config.max_position_embeddings
        self.width: int = text_config.hidden_size
        self.output_dim: int = clip.config.projection_dim

    @property
    def special_tokens(self) -> tuple[int, int, int]:
        """The ids of start, end and padding."""
        return self.tokenizer.bos_id, self.tokenizer.eos_id, self.tokenizer.pad_id

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without start, end and padding."""
        return self.tokenizer.encode(texts)

    def embed(self, token_ids: Tensor) -> Tensor:
        """Token embeddings without positions: (N, L) -> (N, L, W)."""
        return self.text_model.embeddings.token_embedding(token_ids)

    def prefix_tree(self, token_ids: Tensor, groups: Tensor | None = None) -> PrefixTree:
        """The distinct prefixes of (N, L) ids, up to each one's first end token."""
        lengths = first_position(token_ids, self.tokenizer.eos_id) + 1
        return PrefixTree(token_ids[:, : int(lengths.max())], lengths, groups)

    def encode(self, token_embeddings: Tensor, token_ids: Tensor, tree: PrefixTree | None = None) -> Tensor:
        """Text features, projected and not normalised: (N, L, W) embeddings of (N, L) ids -> (N, D).

        Causal, pooled at the first end token. tree: what ``prefix_tree`` gives, where it is at hand.
        """
        tree = tree or self.prefix_tree(token_ids)
        length = tree.nodes.shape[1]
        x = token_embeddings[:, :length] + self.text_model.embeddings.position_embedding.weight[:length]
        layers = self.text_model.encoder.layers
        x = last_states([_block(layer) for layer in layers], x, tree, layers[0].self_attn.num_heads)
        return self.text_projection(self.text_model.final_layer_norm(x))


def _block(layer: Any) -> Block:
    attention = layer.self_attn

    def attend(x: Tensor) -> Sequence[Tensor]:
        return attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)

    is_quick = layer.mlp.config.hidden_act == "quick_gelu"
    mlp = partial(_quick_gelu_mlp, layer.mlp) if is_quick else layer.mlp
    return Block(layer.layer_norm1, attend, attention.out_proj, layer.layer_norm2, mlp)


def _quick_gelu_mlp(mlp: Any, x: Tensor) -> Tensor:
    """As ``mlp`` itself: x sigmoid(a x) = silu(a x) / a, one pass, with both factors left to the matrix products."""
    hidden = F.silu(torch.addmm(mlp.fc1.bias, x, mlp.fc1.weight.t(), beta=QUICK_GELU, alpha=QUICK_GELU))
    return torch.addmm(mlp.fc2.bias, hidden, mlp.fc2.weight.t(), alpha=1 / QUICK_GELU)


TextTower = ClipTextTower | ConchTextTower


def first_position(token_ids: Tensor, token: int) -> Tensor:
    """Index of the first ``token`` in each row: (N, L) -> (N,)."""
    return (token_ids == token).int().argmax(dim=1)


class ClipTokenizer:
    """CLIP's BPE: from the model's own folder, or CLIP's standard vocabulary where the folder brings none.

    Padding is 0, as in OpenAI's tokenizer; it matters only for the released encoding.
    """

    pad_id = 0

    def __init__(self, folder: Path | str, vocab_size: int):
        if has_tokenizer(folder):
            from transformers import AutoTokenizer

            try:
                tokenizer = AutoTokenizer.from_pretrained(folder)
            except Exception as error:  # each file format has exceptions of its own
                raise UserError(f"{folder}: cannot load its tokenizer files: {first_line(error)}") from error
            self.bos_id, self.eos_id = tokenizer.bos_token_id, tokenizer.eos_token_id
            self._encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
        elif vocab_size == CLIP_VOCAB_SIZE:
            from open_clip import SimpleTokenizer

            standard = SimpleTokenizer()
            self.bos_id, self.eos_id = standard.sot_token_id, standard.eot_token_id
            self._encode = standard.encode
        else:
            raise UserError(
                f"{folder}: no tokenizer found, and its vocabulary of {vocab_size} is not CLIP's standard one "
                f"({CLIP_VOCAB_SIZE}); put tokenizer.json (or vocab.json and merges.txt) into the folder"
            )

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return [self._encode(text) for text in texts]


def has_tokenizer(folder: Path | str) -> bool:
    """Whether a Hugging Face folder has tokenizer files; a hub id always has."""
    path = Path(folder)
    return not path.is_dir() or (path / "tokenizer.json").exists() or (path / "vocab.json").exists()


def load_clip_text_tower(source: str) -> ClipTextTower:
    """The text tower of a CLIP model: a local Hugging Face folder or a hub id.

    Raises UserError where the model cannot be had, or where weights of the text side are missing.
    """
    from transformers import CLIPModel

    with loading_clip(source, "config.json, model.safetensors, tokenizer files"):
        loaded: Any = CLIPModel.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, attn_implementation="sdpa"
        )
    clip, report = loaded
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(("vision_model", "visual_")))
    mismatched = sorted(str(name) for name in report["mismatched_keys"])
    if missing or mismatched:
        raise UserError(
            f"{source}: not a complete CLIP text tower: {len(missing)} weights are missing, {len(mismatched)} have "
            f"another shape than config.json says ({', '.join((missing + mismatched)[:3])}); expected the files of a "
            "transformers CLIPModel"
        )
    return ClipTextTower(clip.float(), ClipTokenizer(source, clip.config.text_config.vocab_size))


def load_conch(weights: Path) -> ConchTextTower:
    """CONCH's text tower from its weight file. Raises UserError where a file is missing or does not fit."""
    if not weights.is_file():
        raise UserError(
            f"{weights}: CONCH's weights are not there; ask for access at the hub repository MahmoodLab/CONCH, put "
            "its pytorch_model.bin into conch/ or name the file with --vlm_path"
        )
    tokenizer_file = find_tokenizer_file(beside=weights.parent)
    if tokenizer_file is None:
        raise UserError(
            f"conch/{TOKENIZER_FILE}: CONCH's tokenizer file is not there, nor beside {weights}, nor in an installed "
            f"CONCH package; copy it from CONCH's repository (github.com/mahmoodlab/CONCH, "
            f"conch/open_clip_custom/tokenizers/{TOKENIZER_FILE}) into conch/"
        )
    try:
        return load_conch_text_tower(weights, tokenizer_file)
    except UnpicklingError as error:
        raise UserError(
            f"{weights}: not readable as PyTorch tensors (a git-lfs pointer, or cut off?); expected CONCH's weights"
        ) from error
    except Exception as error:  # each file format has exceptions of its own
        raise UserError(
            f"{weights} and {tokenizer_file.name}: cannot be loaded as CONCH's text tower ({first_line(error)}); "
            "expected text.* and logit_scale of CONCH, sizes in open_clip_config.json where not the published ones"
        ) from error


def load_text_tower(feature_extractor: str, vlm_path: str | None) -> TextTower:
    """The frozen text tower that belongs to a feature extractor.

    feature_extractor: plip, quiltnet, conch, or any name together with ``vlm_path`` (a Hugging Face CLIP folder, a
    hub id, or a CONCH weight file). Raises UserError where it cannot be had.
    """
    is_weight_file = vlm_path is not None and Path(vlm_path).suffix in {".bin", ".pt", ".pth"}
    if is_weight_file or (feature_extractor == "conch" and (vlm_path is None or not Path(vlm_path).is_dir())):
        tower: TextTower = load_conch(Path(vlm_path) if vlm_path else CONCH_WEIGHTS)
    elif feature_extractor == "conch" and not (Path(str(vlm_path)) / "config.json").exists():
        tower = load_conch(Path(str(vlm_path)) / "pytorch_model.bin")
    elif vlm_path is None and feature_extractor not in PUBLISHED_VLMS:
        raise UserError(
            f"--feature_extractor {feature_extractor}: its vision-language model is not known; name it with "
            "--vlm_path (a Hugging Face CLIP folder, a hub id, or a CONCH pytorch_model.bin)"
        )
    else:
        tower = load_clip_text_tower(vlm_path or PUBLISHED_VLMS[feature_extractor])
    return tower.requires_grad_(False).eval()
