"""Damaged inputs: refused with a fault, or without effect, or an input of the user's that may be another."""

import random
from dataclasses import dataclass, replace

from tests.campaign.calls import REFUSED
from tests.campaign.mutate import mutate
from tests.campaign.places import Finding, Place
from tests.campaign.trials import Expected
from tests.campaign.world import HIERARCHICAL, RUN, STOPPED_RUN

KIND = "mutation"
MEMORY = 6 * 2**30
SECONDS = 120
FEATURES = f"task/features/simulated_tinyclip/{HIERARCHICAL}/*.h5"
PARENTS = "task/features/simulated_tinyclip/tinyclip_5x/*.h5"
TOWER = "task/tinyclip/*"
TABLES = ("task/simulated.csv", "task/simulated.json", "task/splits/simulated_2/*.csv")
RECORDS = (f"{RUN}/config.json", f"{RUN}/fold_*.json")


@dataclass(frozen=True)
class Reader:
    """What a scenario reads. sealed: patterns of files whose digests the project knows, so that another content must
    not pass; own: of files that users make and change."""

    sealed: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


READERS = {
    "main": Reader(own=(*TABLES, FEATURES, PARENTS, TOWER)),
    "main, ABMIL": Reader(own=(*TABLES, FEATURES, "task/features/simulated_tinyclip/tinyclip_20x/*.h5")),
    "main, finished": Reader(sealed=(*RECORDS, *TABLES, FEATURES, TOWER)),
    "main, stopped": Reader(sealed=(f"{STOPPED_RUN}/resume_0.pt", f"{STOPPED_RUN}/config.json", *TABLES, FEATURES)),
    "main --from_config": Reader(sealed=(f"{RUN}/config.json", *TABLES, FEATURES, TOWER)),
    "predict": Reader(sealed=(*RECORDS, f"{RUN}/s_?_checkpoint.pt", f"{RUN}/splits_?.csv", TOWER),
                      own=("task/simulated.csv", FEATURES, PARENTS)),
    "explain": Reader(sealed=(*RECORDS, f"{RUN}/s_0_checkpoint.pt", TOWER), own=(FEATURES, PARENTS)),
    "results_page": Reader(
        sealed=(*RECORDS, f"{RUN}/predictions_?.csv", f"{RUN}/history_?.csv", f"{RUN}/splits_?.csv"),
    ),
    "report_results": Reader(sealed=(*RECORDS, f"{RUN}/predictions_?.csv", f"{RUN}/splits_?.csv")),
    "link": Reader(own=("unlinked/*/tinyclip_*/*.h5",)),
    "check --fix": Reader(own=("broken/*/*/*.h5",)),
    "create_splits": Reader(own=("small/table.csv",)),
    "create_mil_task": Reader(own=("small/mil.csv",)),
    "run_experiments": Reader(own=("small/grid.yaml",)),
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """refused, harmless or altered; or a finding."""

    name: str
    finding: Finding | None = None


def damage_an_input(place: Place, expected: Expected, generator: random.Random) -> Verdict:
    """Damage a file that the scenario reads, and make its call."""
    place.lay()
    reader = READERS[place.scenario.name]
    pattern = generator.choice([*reader.sealed, *reader.own])
    file = generator.choice(sorted(place.path.glob(pattern)))
    how = f"{file.relative_to(place.path)}: {mutate(file, generator)}"
    call = replace(place.scenario.call(place.path), memory=MEMORY, seconds=SECONDS)
    ended = place.world.process.run(call)

    def finding(problem: str) -> Verdict:
        return Verdict("finding", Finding(KIND, place.scenario.name, how, problem))

    # of a check: faults were found, and not all of them repaired
    if fault := ended.fault((place.scenario.exit, REFUSED, *((1,) if place.scenario.name == "check --fix" else ()))):
        return finding(fault)
    if ended.code == REFUSED:
        return Verdict("refused") if ended.codes else finding(f"refused without a fault: {ended.said.strip()[-200:]}")
    name = str(file.relative_to(place.path))
    others = {other: content for other, content in expected.files.items() if other != name}
    own = {name: file.read_bytes()} if file.exists() else {}  # the call may have removed what it read
    if not (differences := place.differences({**others, **own})):
        return Verdict("harmless")
    return finding(f"silent wrong result: {differences}") if pattern in reader.sealed else Verdict("altered")
