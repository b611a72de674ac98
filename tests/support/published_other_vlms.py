"""Small models with random weights, saved as published: those of the families beside CLIP, CONCH and open_clip."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import utils.torchvision_compat  # noqa: F401  (before transformers and timm)

WORDS = ["small", "large", "nests", "mitoses", "clear", "cells", "mucin", "of", "tumour", "5x", "(", ")", ",", ".", "x"]
PIECES = [
    *"abcdefghijklmnopqrstuvwxyz0123456789",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"),
]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES[:23], *PIECES[24:], *WORDS]
BERT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "vocab_size": len(VOCABULARY), "max_position_embeddings": 40, "pad_token_id": 0,
}  # fmt: skip
WIDTH = 16  # of the joint spaces
VIT = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Weights that are all different, so that a lost one shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + (parameter.dim() == 1) * 0.5)
    return module.eval()


def save_tensors(state: Mapping[str, Tensor], file: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous().clone() for name, value in state.items()}, file, metadata={"format": "pt"})


def save_bert_vocabulary(folder: Path) -> None:
    """A WordPiece vocabulary: letters, and some whole words."""
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    config = {"do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 40}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def bert_model(with_pooler: bool = True) -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**BERT), add_pooling_layer=with_pooler)


def bert_tokens(folder: Path, texts: list[str]) -> Any:
    """input_ids and attention_mask, by transformers."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer(texts, padding="max_length", max_length=40, return_tensors="pt")


# ---- open_clip with BERT ---------------------------------------------------------------------------------------------


class OpenClipBert(nn.Module):
    """By the names of BiomedCLIP's file."""

    def __init__(self) -> None:
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        self.visual = nn.Module()
        self.visual.trunk = VisionTransformer(**VIT, num_classes=0)
        self.visual.head = nn.Sequential()
        self.visual.head.proj = nn.Linear(VIT["embed_dim"], WIDTH, bias=False)
        self.text = nn.Module()
        self.text.transformer = bert_model(with_pooler=False)
        middle = (BERT["hidden_size"] + WIDTH) // 2
        sizes = (BERT["hidden_size"], middle), (middle, WIDTH)
        self.text.proj = nn.Sequential(nn.Linear(*sizes[0], bias=False), nn.GELU(), nn.Linear(*sizes[1], bias=False))
        self.logit_scale = nn.Parameter(torch.tensor(4.0))

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.visual.head(self.visual.trunk(pixels))

    def encode_text(self, input_ids: Tensor) -> Tensor:
        given = self.text.transformer(input_ids=input_ids, attention_mask=(input_ids != 0).long())
        return self.text.proj(given.last_hidden_state[:, 0])


def save_open_clip_bert(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    model = randomise(OpenClipBert(), seed)
    ids = {"text.transformer.embeddings.position_ids": torch.arange(40)[None]}
    torch.save({**model.state_dict(), **ids}, folder / "open_clip_pytorch_model.bin")
    text = {
        "hf_model_name": "somebody/SomeBERT", "hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 40,
    }  # fmt: skip
    vision = {"timm_model_name": "tiny_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 32}
    config = {"model_cfg": {"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": text}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": BERT}))  # as PMB has it
    save_bert_vocabulary(folder)
    return folder


def load_open_clip_bert(folder: Path) -> OpenClipBert:
    model = OpenClipBert()
    state = torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)
    model.load_state_dict({name: value for name, value in state.items() if "position_ids" not in name})
    return model.eval()


# ---- KEEP ------------------------------------------------------------------------------------------------------------


class Keep(nn.Module):
    """As the authors' quick start builds it."""

    def __init__(self) -> None:
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        self.visual = VisionTransformer(**VIT, num_classes=0, init_values=1e-5)
        width = BERT["hidden_size"]
        self.visual_head = nn.Sequential(nn.Linear(VIT["embed_dim"], width), nn.GELU(), nn.Linear(width, width))
        self.text = bert_model()
        self.logit_scale = nn.Parameter(torch.tensor(4.0))

    def encode_image(self, pixels: Tensor) -> Tensor:
        return nn.functional.normalize(self.visual_head(self.visual(pixels)), dim=-1)

    def encode_text(self, tokens: Any) -> Tensor:
        return self.text(**tokens).pooler_output


def save_keep(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    state = randomise(Keep(), seed).state_dict()
    names = {name: name.replace(".ls1.gamma", ".ls1.weight").replace(".ls2.gamma", ".ls2.weight") for name in state}
    save_tensors({names[name]: value for name, value in state.items()}, folder / "model.safetensors")
    config = {"model_type": "keep", "text_config": BERT, "vision_config": VIT, "auto_map": {"AutoModel": "m.KEEPModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    save_bert_vocabulary(folder)
    return folder


def load_keep(folder: Path) -> Keep:
    from safetensors.torch import load_file

    model = Keep()
    state = load_file(folder / "model.safetensors")
    model.load_state_dict({name.replace(".ls1.weight", ".ls1.gamma").replace(".ls2.weight", ".ls2.gamma"): value
                           for name, value in state.items()})  # fmt: skip
    return model.eval()


# ---- SigLIP ----------------------------------------------------------------------------------------------------------


def save_siglip(folder: Path, seed: int = 0) -> Path:
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    folder.mkdir(exist_ok=True)
    size = save_pieces(folder / "spiece.model")
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = SiglipConfig(
        text_config={**sizes, "vocab_size": size, "max_position_embeddings": 32, "projection_size": WIDTH},
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
    )
    randomise(SiglipModel(config), seed).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SiglipTokenizer"}))
    return folder


def save_pieces(file: Path) -> int:
    """A SentencePiece model as SigLIP's: <pad> </s> <unk>, no start. Returns the number of its pieces."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    texts = [" ".join(WORDS[index:] + WORDS[:index]) for index in range(len(WORDS))]
    SentencePieceTrainer.train(
        sentence_iterator=iter([*texts, " ".join("abcdefghijklmnopqrstuvwxyz0123456789")]),
        model_prefix=str(file.with_suffix("")), vocab_size=70, hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2,
        bos_id=-1, add_dummy_prefix=False, minloglevel=2, num_threads=1,
    )  # fmt: skip
    file.with_suffix(".vocab").unlink()
    size: int = SentencePieceProcessor(model_file=str(file)).get_piece_size()
    return size


# ---- VisionTextDualEncoder -------------------------------------------------------------------------------------------


def save_dual_encoder(folder: Path, seed: int = 0) -> Path:
    from transformers import (
        BertConfig,
        VisionTextDualEncoderConfig,
        VisionTextDualEncoderModel,
        ViTConfig,
        ViTImageProcessor,
    )

    folder.mkdir(exist_ok=True)
    vision = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=32, patch_size=16
    )
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, BertConfig(**BERT), projection_dim=WIDTH)
    randomise(VisionTextDualEncoderModel(config), seed).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    save_bert_vocabulary(folder)
    return folder
