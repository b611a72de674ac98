"""Servers in place of those of the world, and what a child does so that a script finds them."""

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import requests
import torch

from datasets import released
from tests.support.blank_figures import save_blank
from tests.support.chat_server import chat_server
from tests.support.description_answers import GOOD
from tests.support.drive_server import HOSTS, drive
from tests.support.failing_server import files_of, serve
from tests.support.gdc_server import gdc, record
from tests.support.small_release import MADE, Disk, sha256

SMALL_RELEASE = "tests.campaign.stand_ins:use_small_release"
NO_KEYS = "tests.campaign.stand_ins:forget_keys"
BLANK_FIGURES = "tests.campaign.stand_ins:draw_nothing"
GRID_PROJECT = "tests.campaign.stand_ins:use_project"
STOP = "tests.campaign.stand_ins:stop_before_a_result"
ARCHIVED = ("tcga_rcc", "plip")

PROJECT_OF_A_GRID = """
import json, os, sys
from pathlib import Path
given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:] if "=" in word)
fold = int(given["k_start"])
run = Path(given["results_dir"]) / "t/plip/16/t_plip_HiVE_MIL_16_s1"
names = ("test_auc", "test_f1", "test_acc", "val_auc", "val_f1", "val_acc")
result = {"fold": fold, **{name: fold / 4 for name in names}, "test_hit_ratio": 0, "best_epoch": 0, "epochs": 1}
hidden = run / f".fold_{fold}"
hidden.write_text(json.dumps(result))
os.replace(hidden, run / f"fold_{fold}.json")
"""
"""A main.py that has trained as soon as it is called."""

SLIDES = [
    *(record("TCGA-LUAD", f"TCGA-05-000{number}", "Adenocarcinoma, NOS") for number in range(3)),
    *(record("TCGA-LUSC", f"TCGA-18-000{number}", "Squamous cell carcinoma, NOS") for number in range(3)),
]


@contextmanager
def servers(archive: bytes, release: Path) -> Iterator[dict[str, str]]:
    """The addresses of a language model (chat), the GDC (gdc), the authors' files (release) and Google Drive (drive),
    until the block ends."""
    weights = io.BytesIO()
    torch.save({"logit_scale": torch.tensor(4.0), "text.ln_final.weight": torch.arange(5.0)}, weights)
    ids = released.RELEASED["feature_archives"][ARCHIVED[0]][ARCHIVED[1]], released.RELEASED["conch_weights"]
    kept = dict(zip(ids, (archive, weights.getvalue()), strict=True))
    with ExitStack() as stack:
        yield {
            "chat": stack.enter_context(chat_server(GOOD)).url,
            "gdc": stack.enter_context(serve(gdc(SLIDES))).url,
            "release": stack.enter_context(serve(files_of(release))).url,
            "drive": stack.enter_context(serve(drive(kept))).url,
        }


# ---- within a child --------------------------------------------------------------------------------------------------


def forget_keys() -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        os.environ.pop(name, None)


def draw_nothing() -> None:
    """Figures are blank: to lay them out takes longer than everything else of a page."""
    from matplotlib.figure import Figure

    Figure.savefig = save_blank  # type: ignore[assignment, method-assign]


def use_project(folder: str) -> None:
    """The main.py that run_experiments.py starts."""
    import experiments.launch

    experiments.launch.PROJECT = Path(folder)


def use_small_release(drive_url: str) -> None:
    """The authors' files are a few small ones; Google Drive's addresses lead to a server of this machine."""
    released.RELEASED["files"] = {name: sha256(content) for name, content in MADE.items()}
    get = requests.Session.get

    def get_here(session: requests.Session, url: str, **settings: Any) -> requests.Response:
        for host in HOSTS:
            url = url.replace(host, drive_url)
        return get(session, url, **settings)

    requests.Session.get = get_here  # type: ignore[method-assign]
    shutil.disk_usage = lambda _: Disk(10**13, 0, 10**13)  # type: ignore[assignment]


def stop_before_a_result() -> None:
    """Training is stopped where the result of its first fold would be written."""
    from training.run_folder import RunFolder

    def stop(self: RunFolder, result: object) -> None:
        raise KeyboardInterrupt

    RunFolder.finish = stop  # type: ignore[method-assign]
