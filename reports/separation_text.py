"""How well descriptions tell the classes apart, as text: a table of mean cosines, and the pairs of texts much alike."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

MOST_PAIRS = 20
READING = (
    "Read: within should exceed between at both scales, and of a low text's cosines with high ones, own should exceed "
    "same class, and that between."
)

MORPHOLOGY_READING = (
    "Read: a category is a low text with its own sub-features. intra is over pairs within one category, a text with "
    "itself among them, distinct over different texts alone, inter over pairs of two categories; intra and distinct "
    "should exceed inter."
)


def separation_text(
    means: np.ndarray, class_names: Sequence[str], columns: Sequence[tuple[str, str]], reading: str = READING
) -> str:
    """A table of mean cosines, and how to read it.

    means: (K + 1, M), one row per class and a last one over all, NaN where there is no pair. columns: M headings of two
    levels.
    """
    table = pd.DataFrame(means, index=[*class_names, "all"], columns=pd.MultiIndex.from_tuples(columns))
    return f"{table.to_string(float_format='{:.4f}'.format, na_rep='-')}\n\n{reading}"


def pairs_text(pairs: Sequence[tuple[float, str, str]], threshold: float) -> str:
    """One line per pair of texts, the first ones of many; a pair is a cosine and the names of both texts."""
    lines = [f"pairs of two classes with a cosine of {threshold:g} or more, or with the same term: {len(pairs)}"]
    lines += [f"  {cosine:.4f}  {first}  |  {second}" for cosine, first, second in pairs[:MOST_PAIRS]]
    if len(pairs) > MOST_PAIRS:
        lines.append(f"  ... and {len(pairs) - MOST_PAIRS} more")
    return "\n".join(lines)
