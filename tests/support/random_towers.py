"""Small text towers with random weights, built in memory, and a tokenizer of whole words."""

import zlib

import torch

from models.vlms import TextSide
from models.vlms.clip import ClipTextSide
from models.vlms.conch import ConchTextSide

VOCABULARY = 300


class WordTokenizer:
    """A word's id is a checksum of its letters."""

    bos_id, eos_id, pad_id = 1, 2, 0

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[3 + zlib.crc32(word.encode()) % (VOCABULARY - 3) for word in text.split()] for text in texts]


def random_clip_tower(width: int = 16, layers: int = 3, length: int = 77, seed: int = 0) -> ClipTextSide:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    sizes = {"intermediate_size": 2 * width, "num_attention_heads": 2, "hidden_size": width}
    text = {"vocab_size": VOCABULARY, "max_position_embeddings": length, "num_hidden_layers": layers}
    config = CLIPConfig(
        text_config={
            **sizes,
            **text,
            "eos_token_id": 2,
            "bos_token_id": 1,
            "pad_token_id": 0,
            "initializer_factor": 3.0,
        },
        vision_config={**sizes, "num_hidden_layers": 1, "image_size": 8, "patch_size": 8},
        projection_dim=width,
    )
    return ClipTextSide(CLIPModel(config), WordTokenizer()).requires_grad_(False).eval()


def random_conch_tower(width: int = 16, layers: int = 3, length: int = 40, seed: int = 0) -> ConchTextSide:
    from open_clip.transformer import TextTransformer

    torch.manual_seed(seed)
    transformer = TextTransformer(
        context_length=length, vocab_size=VOCABULARY, width=width, heads=2, layers=layers, output_dim=width,
        embed_cls=True, pad_id=0, output_tokens=True, correct_cls_mask=False,
    )  # fmt: skip
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tower = ConchTextSide(transformer, torch.tensor(2.0), WordTokenizer())
    return tower.requires_grad_(False).eval()


TOWERS = {"clip": random_clip_tower, "conch": random_conch_tower}


def random_tower(kind: str, **sizes: int) -> TextSide:
    return TOWERS[kind](**sizes)
