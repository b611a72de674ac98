"""TransMIL in small, for tests that look at no numbers of the published sizes, with which it computes for seconds."""

from functools import partial

import pytest

from models.baselines import transmil


def make_transmil_small(patch: pytest.MonkeyPatch) -> None:
    """Eight landmarks, 16 wide, as long as ``patch`` lasts. A checkpoint has these sizes, too."""
    patch.setattr(transmil, "TransMIL", partial(transmil.TransMIL, embedding=16, heads=2, landmarks=8))
