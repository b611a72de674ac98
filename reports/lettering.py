"""Letters in figures: fonts that have the signs of the names shown, names in lines, and room for them."""

import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, findfont, fontManager, get_font
from matplotlib.text import Text

from utils.words import listed

FAMILY = "DejaVu Sans"
CJK_FAMILIES = (
    "Noto Sans CJK", "Source Han Sans", "WenQuanYi", "PingFang", "Hiragino", "Microsoft YaHei", "SimHei", "IPA",
    "Noto Sans",
)  # fmt: skip
"""Beginnings of the names of sans-serif fonts with Chinese, Japanese and Korean signs, which come first where several
fonts would do."""
LINE = 24
"""Columns of a line of a name; a wide sign takes two."""
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.hspace": 0.06,
    "text.parse_math": False,  # class names may hold a $
    "text.usetex": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "figures",  # the same figure gives the same file
}


@contextmanager
def figure_style(texts: Iterable[str] = ()) -> Iterator[None]:
    """The style of all figures, with fonts for the signs of some texts; says so once where no font has a sign."""
    families, absent = _families("".join(sorted(set("".join(texts)))))
    if absent:
        _tell_of(absent)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ ", UserWarning)
        with matplotlib.rc_context({**STYLE, "font.family": list(families)}):
            yield


@cache
def _families(signs: str) -> tuple[tuple[str, ...], str]:
    """The fonts that together have some signs, the usual one first, and the signs that no installed font has."""
    families, missing = [FAMILY], _lacking(findfont(FAMILY), signs)
    others = sorted(fontManager.ttflist, key=_rank) if missing else []
    for entry in others:
        left = _lacking(entry.fname, missing)
        if len(left) < len(missing):
            families.append(entry.name)
            missing = left
        if not missing:
            break
    return tuple(families), missing


def _rank(entry: FontEntry) -> tuple[int, bool, str, str]:
    """Fonts with CJK signs first, then upright ones of usual weight, by name."""
    place = next((n for n, name in enumerate(CJK_FAMILIES) if entry.name.startswith(name)), len(CJK_FAMILIES))
    is_plain = entry.style == "normal" and entry.weight in (400, "normal", "regular")
    return place, not is_plain, entry.name, entry.fname


def _lacking(file: str, signs: str) -> str:
    """The visible signs that a font does not have."""
    try:
        known = get_font(file).get_charmap()
    except (OSError, RuntimeError):
        return signs
    return "".join(sign for sign in signs if ord(sign) not in known and unicodedata.category(sign)[0] not in "CZ")


@cache
def _tell_of(signs: str) -> None:
    print(
        f"note: no installed font has {listed(signs, 10)}; figures show boxes in their place. Install a font that has "
        "them (Debian: apt-get install fonts-noto-cjk)"
    )


# ---- names in lines --------------------------------------------------------------------------------------------------


def columns(text: str) -> int:
    """How many columns a text takes; a wide sign takes two."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def wrapped(text: str, width: int = LINE) -> str:
    """The text in lines of at most ``width`` columns, broken behind a blank, _, -, /, a comma or a wide sign where
    there is one, else anywhere."""
    lines, line = [], ""
    for sign in text:
        line += sign
        if columns(line) <= width:
            continue
        place = next((n for n in range(len(line) - 1, 0, -1) if _may_end(line[n - 1])), len(line) - 1)
        lines.append(line[:place].rstrip(" "))
        line = line[place:]
    return "\n".join([*lines, line])


def _may_end(sign: str) -> bool:
    return sign in " _-/,;" or columns(sign) == 2


# ---- room ------------------------------------------------------------------------------------------------------------


def inches(figure: Figure, artists: Sequence[Any]) -> tuple[float, float]:
    """The greatest width and height among some texts or legends of a figure."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    boxes = [artist.get_window_extent(renderer) for artist in artists]
    sizes = [(box.width / figure.dpi, box.height / figure.dpi) for box in boxes] or [(0.0, 0.0)]
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def text_inches(texts: Sequence[str], size: float, rotation: float = 0) -> tuple[float, float]:
    """The greatest width and height of some texts in points of ``size``, in the style of the moment."""
    figure = Figure()
    return inches(figure, [figure.add_artist(Text(0, 0, text, fontsize=size, rotation=rotation)) for text in texts])
