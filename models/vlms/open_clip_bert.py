"""Models of the open_clip library whose text encoder is BERT: BiomedCLIP, QuiltNet-B-16-PMB.

open_clip asks the hub for BERT's configuration and tokenizer, in a repository of their own. Here the weights tell the
sizes, and the tokenizer is the one in the model's folder, so that a folder is all that is needed.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

import utils.torchvision_compat  # noqa: F401  (before transformers)
from models.vlms import open_clip
from models.vlms.bert import BertTextSide, TextTower, bert_config, make_bert
from models.vlms.catalogue import OPEN_CLIP_BERT
from models.vlms.loading import build, only_tensor, reading_config, renamed, without_position_ids
from models.vlms.places import OPEN_CLIP_CONFIG, ModelFiles
from models.vlms.sides import Family, TextSide
from models.vlms.tokenizers import BERT_FILES, own_tokenizer
from utils.errors import Fault, UserError

WORDS = "text.transformer.embeddings.word_embeddings.weight"
POOLERS = {"cls_last_hidden_state_pooler": "cls", "cls_pooler": "pooler", "mean_pooler": "mean"}
BERT_BASE_START = 101  # the id of [CLS] in BERT base's vocabulary, which is as long as PubMedBERT's
PUBMED_BERT = ("pubmedbert", "biomedbert")


def load_text(files: ModelFiles) -> TextSide:
    """The text side. The vision side is not looked at.

    Raises UserError where the configuration is missing or describes no BERT, where weights are missing or do not fit,
    and where the tokenizer is not in the folder.
    """
    config = files.config(OPEN_CLIP_CONFIG)
    if config is None:
        found, expected = (
            f"no {OPEN_CLIP_CONFIG} found",
            "the one that was published with the model, beside its weights",
        )
        raise UserError(Fault("vlm.missing", str(files.folder), found, expected))
    told = f"{files.told} with {OPEN_CLIP_CONFIG}"
    tensors = without_position_ids(renamed(files.tensors, "text."))
    if "transformer.embeddings.word_embeddings.weight" not in tensors:
        only_tensor(files.tensors, WORDS, files.told)
    with reading_config(told):
        said, output_dim = config["model_cfg"]["text_cfg"], int(config["model_cfg"]["embed_dim"])
        pool = POOLERS[said.get("hf_pooler_type") or said.get("pooler_type") or "mean_pooler"]
        bert = bert_config(renamed(tensors, "transformer."), (files.config() or {}).get("text_config") or {})
        if bert.type_vocab_size != 2:
            raise ValueError(f"{said.get('hf_model_name')} is no BERT")
        projection = said.get("hf_proj_type") or said.get("proj")
        length = min(int(said.get("context_length", 77)), bert.max_position_embeddings)
    if pool != "pooler":
        tensors = {name: value for name, value in tensors.items() if not name.startswith("transformer.pooler.")}
    tower: Any = build(
        lambda: TextTower(
            transformer=make_bert(bert, pool == "pooler"), proj=_projection(projection, bert.hidden_size, output_dim)
        ),
        tensors, "text", told,
    )  # fmt: skip
    tokenizer = own_tokenizer(files.folder, bert.vocab_size, BERT_FILES)
    _check_vocabulary(files, said, tokenizer.bos_id)
    scale = only_tensor(files.tensors, "logit_scale", files.told)
    return BertTextSide(tower.transformer, tower.proj, pool, scale, tokenizer, length, output_dim)


def _projection(kind: str | None, width: int, output_dim: int) -> nn.Module:
    """open_clip's HFTextEncoder.proj."""
    if kind == "mlp":
        between = (width + output_dim) // 2
        return nn.Sequential(
            nn.Linear(width, between, bias=False), nn.GELU(), nn.Linear(between, output_dim, bias=False)
        )
    return nn.Linear(width, output_dim, bias=False) if kind == "linear" else nn.Identity()


def _check_vocabulary(files: ModelFiles, said: Mapping[str, Any], start: int | None) -> None:
    """Raises UserError where the folder has BERT base's vocabulary in place of PubMedBERT's, which has other words."""
    name = str(said.get("hf_tokenizer_name") or said.get("hf_model_name") or "").lower()
    if start == BERT_BASE_START and any(part in name for part in PUBMED_BERT):
        found = "its tokenizer is BERT base's, the model's is PubMedBERT's"
        mend = "put the tokenizer files that were published with the model into its folder"
        raise UserError(Fault("vlm.tokenizer", str(files.folder), found, mend=mend))


FAMILY = Family(
    name=OPEN_CLIP_BERT,
    recognises=lambda names: any(name.startswith("text.transformer.embeddings.") for name in names),
    load_text=load_text,
    load_image=open_clip.load_image,
    load_head=open_clip.load_head,
)
