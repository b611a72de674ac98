"""How much memory a run may use."""

from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


SHARE = 0.5  # of the free memory, for features


def cache_bytes(gigabytes: float | None) -> int:
    """The size of a cache: as asked for, else a share of the free memory."""
    return int(SHARE * free_memory() if gigabytes is None else gigabytes * 1e9)


def free_memory() -> int:
    """Bytes that are free on this machine, or left to this process's control group where that is less: jobs of a
    cluster and containers are ended when they pass its limit."""
    available: int = psutil.virtual_memory().available
    return min([available, *_left_to_cgroups()])


def _left_to_cgroups() -> list[int]:
    """What the process's control groups and those above them have left: version 2 (the line ``0::/path``), and the
    memory controller of version 1 (``4:memory:/path``)."""
    try:
        lines = OWN_CGROUP.read_text().splitlines()
    except OSError:
        return []
    left = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "memory" not in controllers.split(","):
            continue
        names = ("limit_in_bytes", "usage_in_bytes") if controllers else ("max", "current")
        root = CGROUPS / "memory" if controllers else CGROUPS
        folder = root / path.removeprefix("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(root):
                break
            try:
                limit, used = (int((group / f"memory.{name}").read_text()) for name in names)
                stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such file in the root group; "max" where there is no limit
                continue
            inactive = stat.get("total_inactive_file", stat.get("inactive_file", 0))
            left.append(limit - used + int(inactive))  # files read earlier can be let go
    return left
