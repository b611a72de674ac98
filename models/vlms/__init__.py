"""Vision-language models: the text side and the image side of each, behind one interface and one registry."""

from models.vlms.interface import ImageSide, TextSide
from models.vlms.registry import load_image_side, load_text_side

__all__ = ["ImageSide", "TextSide", "load_image_side", "load_text_side"]
