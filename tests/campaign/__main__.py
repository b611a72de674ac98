"""The campaign: kills, full and read-only disks, two processes at once, damaged inputs, senseless options.

    make campaign                                              20 kills a script, 1,000 mutations, 10,000 fuzzed calls
    python -m tests.campaign --only "main" "predict" --kills 5 --mutations 0 --fuzz 0

It prints what it found, each with how to see it again, and counts; --table writes the counts as Markdown. The same
seed makes the same trials. The exit code is 1 where anything was found.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.campaign.calls import warm_process
from tests.campaign.campaign import Amounts, Campaign
from tests.campaign.mutations import READERS
from tests.campaign.places import Place
from tests.campaign.scenarios import Scenario, scenarios
from tests.campaign.world import World, made_world


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each scenario, at a seeded event of the file system")
    parser.add_argument("--disks", type=int, default=4, help="full disks, and disks without inodes, of each scenario")
    parser.add_argument("--pairs", type=int, default=4, help="of processes in one folder, of each scenario")
    parser.add_argument("--mutations", type=int, default=1000, help="of inputs, over all scenarios that read some")
    parser.add_argument("--fuzz", type=int, default=10000, help="calls, over all scenarios")
    parser.add_argument("--seconds", type=float, default=60, help="for a fuzzed call")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="scenarios at a time")
    parser.add_argument("--only", nargs="+", default=[], metavar="SCENARIO")
    parser.add_argument("--table", type=Path, help="Markdown file to write the counts to")
    return parser.parse_args(argv)


def shares(total: int, number: int) -> list[int]:
    """A total as evenly as whole numbers allow."""
    return [total // number + (index < total % number) for index in range(number)]


def amounts_of(options: argparse.Namespace, chosen: Sequence[Scenario]) -> list[Amounts]:
    """The trials of each scenario."""
    readers = [scenario.name for scenario in chosen if scenario.name in READERS]
    mutations = dict(zip(readers, shares(options.mutations, len(readers)), strict=True))
    return [
        Amounts(
            kills=options.kills, disks=options.disks, read_only=options.disks > 0, pairs=options.pairs,
            mutations=mutations.get(scenario.name, 0), fuzzed=fuzzed, seconds=options.seconds,
        )
        for scenario, fuzzed in zip(chosen, shares(options.fuzz, len(chosen)), strict=True)
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    campaign = Campaign(options.seed, aloud=True)
    with ExitStack() as stack:
        processes = [stack.enter_context(warm_process()) for _ in range(options.jobs)]
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="campaign_")))
        (base / "world").mkdir()
        world = stack.enter_context(made_world(base / "world", processes[0]))
        chosen = scenarios(world, options.only)

        def run(scenario: Scenario, amounts: Amounts) -> None:
            process = processes.pop()  # no other scenario uses it meanwhile
            try:
                campaign.run(Place(World(world.root, world.urls, process), scenario, base / "places"), amounts)
            finally:
                processes.append(process)

        list(stack.enter_context(ThreadPoolExecutor(options.jobs)).map(run, chosen, amounts_of(options, chosen)))
    table = campaign.counts.table()
    print(f"\n{table}")
    if options.table:
        command = f"python -m tests.campaign {' '.join(sys.argv[1:])}".strip()
        options.table.write_text(f"`{command}`\n\n{table}", encoding="utf-8")
    return int(bool(campaign.counts.findings))


if __name__ == "__main__":
    sys.exit(main())
