"""The record of a run, of this version and of others."""

from pathlib import Path

import pytest

from training.run_record import config_of
from utils.config import Config
from utils.errors import UserError


def test_records_of_older_versions_are_read() -> None:
    """What they lack has its default; what they know alone is refused."""
    assert config_of({"task": "T", "seed": 3}, Path("config.json")) == Config(task="T", seed=3)
    with pytest.raises(UserError) as caught:
        config_of({"task": "T", "forgotten": 1}, Path("config.json"))
    (fault,) = caught.value.faults
    assert (fault.code, fault.where) == ("run.unknown_options", "config.json")
    assert "forgotten" in fault.found
