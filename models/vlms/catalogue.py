"""Published vision-language models by name: what ``--feature_extractor`` takes, and what the README's table shows."""

from dataclasses import dataclass

CONCH, OPEN_CLIP, OPEN_CLIP_BERT, SIGLIP, CLIP, KEEP, MUSK, DUAL_ENCODER = (
    "CONCH",
    "open_clip",
    "open_clip with BERT",
    "SigLIP",
    "Hugging Face CLIP",
    "KEEP",
    "MUSK",
    "VisionTextDualEncoder",
)  # names of families
COLUMNS = ("name", "also called", "family", "hub id", "pixels", "width", "licence")


@dataclass(frozen=True)
class Published:
    """A published model. hub: its repository. licence: as its authors state it; gated models are given on request.

    pixels, width: of its images and of its joint space, as published. file: the weights in the repository, where other
    weights lie beside them. quick_gelu: the activation of weights whose configuration does not tell it.
    """

    name: str
    family: str
    hub: str
    pixels: int
    width: int
    licence: str
    aliases: tuple[str, ...] = ()
    file: str | None = None
    quick_gelu: bool = False

    def cells(self) -> tuple[str, ...]:
        """The model's line in the table, by ``COLUMNS``."""
        called = ", ".join(self.aliases)
        return self.name, called, self.family, self.hub, str(self.pixels), str(self.width), self.licence


OPEN_CLIP_FILE = "open_clip_pytorch_model.bin"
PUBLISHED = (
    Published("plip", CLIP, "vinid/plip", 224, 512, "MIT (in its setup.py)"),
    Published("quiltnet", CLIP, "wisdomik/QuiltNet-B-32", 224, 512, "MIT", ("quiltnet-b32", "quilt-b32")),
    Published("conch", CONCH, "MahmoodLab/conch", 448, 512, "CC-BY-NC-ND-4.0, gated", ("conch-v1",)),
    Published("keep", KEEP, "Astaxanthin/KEEP", 224, 768, "MIT"),
    Published(
        "biomedclip", OPEN_CLIP_BERT, "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", 224, 512, "MIT",
        file=OPEN_CLIP_FILE,
    ),
    Published(
        "quiltnet-b16", OPEN_CLIP, "wisdomik/QuiltNet-B-16", 224, 512, "MIT", ("quilt-b16",), file=OPEN_CLIP_FILE
    ),
    Published(
        "quiltnet-b16-pmb", OPEN_CLIP_BERT, "wisdomik/QuiltNet-B-16-PMB", 224, 512, "MIT", file=OPEN_CLIP_FILE
    ),
    Published(
        "pathgen-clip-b", OPEN_CLIP, "jamessyx/PathGen-CLIP", 224, 512, "CC-BY-2.0, gated",
        ("pathgen-b16", "pathgen", "pathgen-clip"), file="pathgenclip.pt",
    ),
    Published(
        "pathgen-clip-l", CLIP, "jamessyx/pathgenclip-vit-large-patch14-hf", 336, 768, "CC-BY-NC-4.0 (of its .pt)",
        ("pathgen-l14",),
    ),
    Published(
        "pathclip", OPEN_CLIP, "jamessyx/pathclip", 224, 512, "CC-BY-NC-4.0", file="pathclip-base.pt", quick_gelu=True
    ),
    Published(
        "patho-clip-l", OPEN_CLIP, "WenchuanZhang/Patho-CLIP-L", 224, 768, "CC-BY-NC-ND-4.0, gated",
        ("patho-clip", "patho-clip-l14"), file="Patho-CLIP-L.pt",
    ),
    Published(
        "patho-clip-b", OPEN_CLIP, "WenchuanZhang/Patho-CLIP-B", 224, 512, "CC-BY-NC-ND-4.0, gated",
        ("patho-clip-b16",), file="Patho-CLIP-B.pt",
    ),
    Published(
        "medsiglip", SIGLIP, "google/medsiglip-448", 448, 1152, "Health AI Developer Foundations, gated",
        ("medsiglip-448",),
    ),
    Published("musk", MUSK, "xiangjx/musk", 384, 1024, "CC-BY-NC-ND-4.0, gated", file="model.safetensors"),
    Published(
        "omiclip", OPEN_CLIP, "WangGuangyuLab/Loki", 224, 768, "BSD-3-Clause, gated", ("loki",), file="checkpoint.pt"
    ),
    Published(
        "clip-rn50", OPEN_CLIP, "timm/resnet50_clip.openai", 224, 1024, "MIT", ("rn50",), quick_gelu=True
    ),
    Published(
        "clip-vitb", CLIP, "openai/clip-vit-base-patch16", 224, 512, "MIT", ("hf-clip-vitb", "clip-b16")
    ),
    Published("clip-b32", CLIP, "openai/clip-vit-base-patch32", 224, 512, "MIT"),
    Published("clip-l14", CLIP, "openai/clip-vit-large-patch14", 224, 768, "MIT"),
)  # fmt: skip

_SLIDES = "its texts are aligned with whole slides, not with patches: no cosine of a patch and a text means anything"
REFUSED = {
    "titan": _SLIDES,
    "conch1.5": "it is the patch encoder of TITAN and has no text side; TITAN's texts are aligned with slides",
    "prism": _SLIDES,
    "madeleine": _SLIDES,
    "lumen": "it is a small addition to two other models (Virchow2 and BioMedBERT), which this project does not build",
}
"""Models that are known and cannot be used, and why."""
_REFUSED_ALIASES = {"conch-v15": "conch1.5", "conch-v1-5": "conch1.5", "conchv1-5": "conch1.5", "conch-1.5": "conch1.5"}


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


_BY_NAME = {_plain(called): model for model in PUBLISHED for called in (model.name, *model.aliases)}
_BY_HUB = {model.hub.lower(): model for model in PUBLISHED}


def find_published(name: str) -> Published | None:
    """The model of a name, an alias or a hub id; capitals, ``_`` and ``-`` do not matter."""
    return _BY_NAME.get(_plain(name)) or _BY_HUB.get(name.lower())


def why_refused(name: str) -> str | None:
    """Why the model of a name or a hub id cannot be used; None where it may be."""
    plain = _plain(name).rpartition("/")[2]
    return REFUSED.get(_REFUSED_ALIASES.get(plain, plain))


def markdown_table() -> str:
    """The published models, one row per model, as the README holds them."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(model.cells() for model in PUBLISHED)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def text_table() -> str:
    """The published models in columns, for the screen."""
    rows = [COLUMNS, *(model.cells() for model in PUBLISHED)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    refused = [f"{name} cannot be used: {why}" for name, why in REFUSED.items()]
    return "\n".join([*lines, "", *refused])
