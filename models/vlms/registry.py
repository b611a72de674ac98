"""Which family of vision-language models a feature extractor belongs to: one list of rules for texts and images."""

from importlib import import_module
from typing import TypeVar

from models.vlms.sides import Family, ImageSide, Side, Source, TextSide
from utils.errors import Fault, UserError

# modules of this package: the first family that recognises a source has it, and the last takes any path that is left
MODULES = (
    "conch",
    "open_clip",
    "clip",
)
FAMILIES: tuple[Family, ...] = tuple(import_module(f"models.vlms.{name}").FAMILY for name in MODULES)

AnySide = TypeVar("AnySide", bound=Side)


def family_of(source: Source) -> Family:
    """The family whose prefix the source has, else the first that recognises it. Raises UserError where none does."""
    named = [family for family in FAMILIES if family.prefixes and source.starts_with(family.prefixes)]
    for family in [*named, *(family for family in FAMILIES if family.recognises(source))]:
        return family
    known = ", or ".join(family.reads for family in FAMILIES)
    raise UserError(
        Fault(
            "vlm.unknown",
            str(source),
            "its vision-language model is not known",
            mend=f"name it with --vlm_path ({known})",
        )
    )


def load_text_side(feature_extractor: str, vlm_path: str | None = None) -> TextSide:
    """The text side of the vision-language model that a feature extractor belongs to.

    feature_extractor: a published name (plip, quiltnet, conch), or any together with vlm_path. vlm_path: where the
    model is, in one of the ways that its family reads. Returns a frozen module in evaluation mode, on the CPU. Raises
    UserError where it cannot be had.
    """
    source = Source(feature_extractor, vlm_path)
    family = family_of(source)
    if family.load_text is None:
        raise UserError(_absent("vlm.no_text_side", source, family, "text"))
    return _frozen(family.load_text(source))


def load_image_side(feature_extractor: str, vlm_path: str | None = None) -> ImageSide:
    """The image side of the same model. Arguments, state and faults are those of ``load_text_side``."""
    source = Source(feature_extractor, vlm_path)
    family = family_of(source)
    if family.load_image is None:
        raise UserError(_absent("vlm.no_image_side", source, family, "image"))
    return _frozen(family.load_image(source))


def _frozen(side: AnySide) -> AnySide:
    return side.requires_grad_(False).eval()


def _absent(code: str, source: Source, family: Family, side: str) -> Fault:
    """The fault of a model whose family has no such side."""
    found = f"a model of {family.name}, whose {side} side cannot be read"
    return Fault(code, str(source), found, mend="name a model of another family with --vlm_path")
