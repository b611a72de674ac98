"""The warm process: everything is imported, and each call of a script is made in a child that is forked from here."""

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import io
import json
import mmap
import os
import resource
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.campaign.calls import Call, Ended
from tests.campaign.events import COUNT, watch

MOST_OUTPUT = 2**20  # bytes; a pipe holds no more without privileges
MODULES = (
    "create_dataset_csv", "create_hierarchical_features", "create_mil_task", "create_simulated_task", "create_splits",
    "create_text_prompt", "check_hierarchical_consistency", "explain", "extract_features", "fetch_released_assets",
    "judge_descriptions", "main", "predict", "report_class_separation", "report_results", "results_page",
    "run_experiments", "conch.image_tower", "datasets.ask_descriptions", "datasets.consistency_report",
    "datasets.evaluation_track", "datasets.extract", "datasets.foreign_tables", "datasets.judge", "datasets.make_table",
    "datasets.mil_task", "datasets.released", "datasets.simulate", "datasets.split_report", "datasets.write_splits",
    "explanation.explain_run", "explanation.explanation_files", "experiments.launch", "models.class_separation",
    "models.tiny_clip", "models.vlms.clip", "reports.compose", "reports.prediction_report", "reports.run_page",
    "training.inputs", "training.prediction", "training.repeat", "torch_geometric", "transformers", "openai",
    "openai.resources.chat", "tests.campaign.stand_ins", "utils.chat",
)  # fmt: skip
"""What scripts import when they are called."""


def warm_up() -> None:
    """Import what the scripts import, on one thread. CLIP's vocabulary is built once; a tower, an image side and
    figures are made once, since they import by themselves."""
    import torch

    torch.set_num_threads(1)
    import utils.torchvision_compat  # noqa: F401, I001
    import matplotlib.figure
    import open_clip

    open_clip.SimpleTokenizer = functools.cache(open_clip.SimpleTokenizer)
    open_clip.SimpleTokenizer()
    for name in MODULES:
        importlib.import_module(name)
    from models.tiny_clip import save_tiny_clip
    from models.vlms import load_image_side, load_text_side

    with tempfile.TemporaryDirectory() as folder:
        save_tiny_clip(Path(folder), 16)
        load_text_side("tinyclip", folder)
        load_image_side("tinyclip", folder)
    figure = matplotlib.figure.Figure()
    figure.subplots().set_title("title")
    for form in ("png", "svg"):
        figure.savefig(io.BytesIO(), format=form)
    gc.collect()
    gc.freeze()


@dataclass
class Child:
    """A call that runs."""

    pid: int
    pidfd: int
    output: int
    report: int
    counter: mmap.mmap
    started: float
    call: Call


def start(call: Call) -> Child:
    """Fork a child that makes a call."""
    (output, said), (report, told) = os.pipe(), os.pipe()
    fcntl.fcntl(said, fcntl.F_SETPIPE_SZ, MOST_OUTPUT)
    counter = mmap.mmap(-1, mmap.PAGESIZE)
    pid = os.fork()
    if pid == 0:
        os.close(output), os.close(report)
        _be_the_script(call, said, told, counter)
    os.close(said), os.close(told)
    return Child(pid, os.pidfd_open(pid), output, report, counter, time.monotonic(), call)


def _be_the_script(call: Call, said: int, told: int, counter: mmap.mmap) -> None:
    """The child's whole life: it never returns."""
    code = 70
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0), os.dup2(said, 1), os.dup2(said, 2)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
        os.chdir(call.place)
        os.environ["HOME"] = call.place
        code = _run(call, told, counter)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def _run(call: Call, told: int, counter: mmap.mmap) -> int:
    from utils.errors import UserError, run_script

    if call.arrange:
        module, _, name = call.arrange.partition(":")
        getattr(importlib.import_module(module), name)(*call.arranged_with)
    codes: list[str] = []

    def script(argv: Sequence[str] | None) -> None:
        try:
            importlib.import_module(call.script).main(argv)
        except UserError as error:
            codes.extend(fault.code for fault in error.faults)
            raise

    if call.read_only:
        make_read_only([Path(call.place, name) for name in call.read_only])
        os.chdir(call.place)  # into what is mounted there now
    if call.file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (call.file_size, resource.RLIM_INFINITY))
    if call.memory is not None:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
        resource.setrlimit(resource.RLIMIT_AS, (taken + call.memory, resource.RLIM_INFINITY))
    watch(Path(call.place), counter, call.disturbance)
    try:
        code = run_script(script, call.argv)
    except SystemExit as stop:  # argparse, and checks that found something
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    os.write(told, json.dumps(codes).encode())
    _join_threads()
    return code


def _join_threads() -> None:
    """What the interpreter does at its end, as far as scripts rely on it."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()


def make_read_only(folders: Sequence[Path]) -> None:
    """Mount folders over themselves, read-only, in a name space of this process."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, bind, remount, read_only, recursive, private = 0x20000, 4096, 32, 1, 16384, 1 << 18

    def must(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    must(libc.unshare(new_namespace))
    must(libc.mount(b"none", b"/", None, recursive | private, None))
    for folder in folders:
        name = os.fsencode(folder)
        must(libc.mount(name, name, None, bind, None))
        must(libc.mount(name, name, None, bind | remount | read_only, None))


def finish(child: Child) -> Ended:
    """Wait for a child; past its time it is killed."""
    poll = select.poll()
    poll.register(child.pidfd, select.POLLIN)
    left = child.started + child.call.seconds - time.monotonic()
    in_time = bool(poll.poll(max(0, left * 1000)))
    if not in_time:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    _, status, usage = os.wait4(child.pid, 0)
    os.close(child.pidfd)
    ended = Ended(
        code=os.waitstatus_to_exitcode(status),
        said=_drain(child.output).decode(errors="replace"),
        codes=tuple(json.loads(_drain(child.report) or b"[]")),
        events=COUNT.unpack_from(child.counter)[0],
        seconds=time.monotonic() - child.started,
        cpu=usage.ru_utime + usage.ru_stime,
        memory=usage.ru_maxrss * 1024,
        in_time=in_time,
    )
    child.counter.close()
    return ended


def _drain(pipe: int) -> bytes:
    """What a pipe holds now, though others may still hold its other end."""
    os.set_blocking(pipe, False)
    parts = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(pipe, 65536):
            parts.append(part)
    os.close(pipe)
    return b"".join(parts)


def serve_calls(requests: int, answers: int) -> None:
    """Read lists of calls from a pipe, as lines of JSON, run the calls of a list at once, and write a line for each
    list to another pipe; until the first pipe is closed."""
    atexit._clear()  # what the process before the fork wanted to do at its end
    warm_up()
    with os.fdopen(requests) as lines, os.fdopen(answers, "w") as told:
        for line in lines:
            children: list[Child] = []
            for given in json.loads(line):
                call = Call.of(given)
                time.sleep(call.after)
                children.append(start(call))
            ended: list[dict[str, Any]] = [asdict(finish(child)) for child in children]
            print(json.dumps(ended), file=told, flush=True)
