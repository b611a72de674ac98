"""How a simulated slide looks; apart from what simulates it, so that the options of a script need no NumPy."""

from dataclasses import dataclass, field
from typing import Any


def within(lowest: float, highest: float, default: float) -> Any:
    """A field with the bounds of its values, in its metadata under ``range``."""
    return field(default=default, metadata={"range": (lowest, highest)})


@dataclass(frozen=True)
class SimulationSettings:
    """How a simulated slide looks.

    min_parents, max_parents: slides have this many low patches, evenly over the logarithm. planted_share: of a slide's
    parents that carry a pattern of its class; of their children, ``planted_child_share`` carry a detail of it.
    confounder_share: of parents that carry a pattern of another class. strength: weight of the text feature in a
    planted patch, against noise of weight 1. missing_child, childless: shares of child slots without a patch and of
    parents without any child.
    """

    min_parents: int = within(1, 10000, 40)
    max_parents: int = within(1, 10000, 160)
    planted_share: float = within(0, 1, 0.2)
    planted_child_share: float = within(0, 1, 0.5)
    confounder_share: float = within(0, 1, 0.02)
    strength: float = within(0, 1000, 1.5)
    missing_child: float = within(0, 1, 0.1)
    childless: float = within(0, 1, 0.03)
