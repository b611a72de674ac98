"""The memory that a run may use: of the machine, and of control groups with limits."""

from pathlib import Path

import psutil
import pytest

from utils import memory
from utils.memory import cache_bytes, free_memory

GB = 10**9


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 100 GB free; returns the folder of its control groups, of which this process is in job/step."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 100 * GB}))
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "OWN_CGROUP", tmp_path / "own")
    (tmp_path / "own").write_text("0::/job/step\n")
    (tmp_path / "cgroup" / "job" / "step").mkdir(parents=True)
    return tmp_path / "cgroup"


def limit(group: Path, most: str, used: int, files: int = 0) -> None:
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {files}\nactive_file 5\n")


def test_without_limits_it_is_the_machines(machine: Path) -> None:
    assert free_memory() == 100 * GB
    limit(machine / "job", "max", 3 * GB)
    assert free_memory() == 100 * GB
    memory.OWN_CGROUP.unlink()
    assert free_memory() == 100 * GB


def test_a_jobs_limit_counts(machine: Path) -> None:
    """Of the job, above the step; files that were read and can be let go are free."""
    limit(machine / "job" / "step", "max", 10 * GB)
    limit(machine / "job", str(40 * GB), 15 * GB, files=5 * GB)
    assert free_memory() == 30 * GB
    limit(machine / "job" / "step", str(12 * GB), 10 * GB)
    assert free_memory() == 2 * GB


def test_a_jobs_limit_under_version_1(machine: Path) -> None:
    memory.OWN_CGROUP.write_text("5:cpu,cpuacct:/job\n4:memory:/slurm/job\n")
    group = machine / "memory" / "slurm" / "job"
    group.mkdir(parents=True)
    for name, value in (("limit_in_bytes", 8 * GB), ("usage_in_bytes", 3 * GB)):
        (group / f"memory.{name}").write_text(f"{value}\n")
    (group / "memory.stat").write_text(f"inactive_file 5\ntotal_inactive_file {GB}\n")
    assert free_memory() == 6 * GB


def test_the_size_of_the_cache(machine: Path) -> None:
    assert cache_bytes(None) == 50 * GB
    assert cache_bytes(0) == 0
    assert cache_bytes(1.5) == 1.5 * GB


def test_on_this_machine() -> None:
    assert 0 < free_memory() <= psutil.virtual_memory().total
