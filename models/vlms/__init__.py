"""Vision-language models: the text side and the image side of each, behind one interface and one registry."""

from models.vlms.registry import load_image_side, load_text_side
from models.vlms.sides import ImageSide, TextSide

__all__ = ["ImageSide", "TextSide", "load_image_side", "load_text_side"]
