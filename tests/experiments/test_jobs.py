"""Folds as processes, here small scripts: ends, retries, shares of GPUs, and that nothing is left running."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from experiments import jobs as jobs_module
from experiments.jobs import FoldJob, LostFoldError, Outcomes, gpu_shares, last_lines, on_ray, on_this_machine, run_job
from tests.conftest import PROJECT
from utils.errors import UserError

MakeJob = Callable[..., FoldJob]
# the script's process id in a file, then as told
BEGINNING = """
    import os, signal, sys, time
    from pathlib import Path
    Path(f"{NAME}.pid").write_text(str(os.getpid()))
    first = not Path(f"{NAME}.again").exists()
    Path(f"{NAME}.again").touch()
"""
ENDLESS = """
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        Path(f"{NAME}.interrupted").touch()
        sys.exit(130)
"""


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    def make(name: str, code: str, threads: int = 1) -> FoldJob:
        text = f"NAME = {name!r}\n" + textwrap.dedent(BEGINNING) + textwrap.dedent(code)
        (tmp_path / f"{name}.py").write_text(text)
        return FoldJob(name, (f"{name}.py", "an option"), tmp_path, tmp_path / "logs" / f"{name}.log", threads)

    return make


def starts(job: FoldJob) -> int:
    return job.log.read_text().count(f"$ python {job.name}.py 'an option'\n")


def faults_by_name(stream: Iterable[Outcomes]) -> dict[str, str]:
    return {job.name: fault for ended in stream for job, fault in ended}


def wait_for(condition: Callable[[], bool], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def process_of(job: FoldJob) -> psutil.Process:
    file = job.folder / f"{job.name}.pid"
    wait_for(lambda: file.exists() and file.read_text() != "")
    return psutil.Process(int(file.read_text()))


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# ------------------------------------------------------------------------------------------------ this machine


def test_ends_and_retries(make_job: MakeJob) -> None:
    jobs = [
        make_job("good", "print('well done')"),
        make_job("mistake", "sys.exit(2)"),
        make_job("failing", "sys.exit(3)"),
        make_job("once", "os.kill(os.getpid(), signal.SIGKILL) if first else None"),
        make_job("always", "os.kill(os.getpid(), signal.SIGKILL)"),
    ]
    faults = faults_by_name(on_this_machine(jobs, [{}] * 3, retries=2))
    assert faults == {
        "good": "", "mistake": "exit code 2", "failing": "exit code 3", "once": "", "always": "ended by SIGKILL"
    }  # fmt: skip
    assert [starts(job) for job in jobs] == [1, 1, 3, 2, 3]
    assert "well done" in jobs[0].log.read_text()


def test_a_log_keeps_what_earlier_calls_said(make_job: MakeJob) -> None:
    job = make_job("good", "print('error', file=sys.stderr)")
    for _ in range(2):
        faults_by_name(on_this_machine([job], [{}], 0))
    assert job.log.read_text().count("error\n") == starts(job) == 2


def test_no_more_at_a_time_than_shares(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted where folds start; the first one ends once the second one has begun."""
    code = """
        while not Path("job1.pid").exists():
            time.sleep(0.01)
        Path(f"{NAME}.share").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    """
    begun: list[tuple[subprocess.Popen[bytes], str]] = []
    at_once: list[list[str]] = []
    start = jobs_module.start

    def counted(job: FoldJob, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
        share = variables["CUDA_VISIBLE_DEVICES"]
        at_once.append([share, *(other for process, other in begun if process.poll() is None)])
        begun.append((start(job, variables), share))
        return begun[-1][0]

    monkeypatch.setattr(jobs_module, "start", counted)
    jobs = [make_job(f"job{number}", code) for number in range(5)]
    shares = [{"CUDA_VISIBLE_DEVICES": share} for share in ("0", "1")]
    assert set(faults_by_name(on_this_machine(jobs, shares, 0)).values()) == {""}
    assert [(tmp_path / f"{job.name}.share").read_text() for job in jobs] == [share for _, share in begun]
    assert all(len(set(working)) == len(working) for working in at_once)  # a share is one job's at a time
    assert sorted(at_once[1]) == ["0", "1"]


def test_threads_folder_and_input(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    monkeypatch.setenv("KEPT", "yes")
    code = "print(os.environ['OMP_NUM_THREADS'], os.environ['KEPT'], Path.cwd(), repr(sys.stdin.read()), sys.argv[1:])"
    job = make_job("job", code, threads=3)
    assert faults_by_name(on_this_machine([job], [{}], 0)) == {"job": ""}
    assert f"3 yes {tmp_path} '' ['an option']\n" in job.log.read_text()


def test_an_early_end_takes_the_folds_along(make_job: MakeJob, tmp_path: Path) -> None:
    jobs = [make_job(name, ENDLESS) for name in ("a", "b", "waiting")]
    with closing(on_this_machine(jobs, [{}] * 2, 0)) as stream:
        next(stream)
        processes = [process_of(job) for job in jobs[:2]]
    assert all(is_gone(process) for process in processes)
    assert {path.stem for path in tmp_path.glob("*.interrupted")} == {"a", "b"}
    assert not jobs[2].log.exists()


def test_a_fold_that_does_not_follow_is_killed(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "GRACE_SECONDS", 0.3)
    code = "signal.signal(signal.SIGINT, signal.SIG_IGN)\nPath('deaf').touch()\ntime.sleep(60)"
    job = make_job("job", code)
    with closing(on_this_machine([job], [{}], 0)) as stream:
        next(stream)
        process = process_of(job)
        wait_for((job.folder / "deaf").exists)
    assert is_gone(process)


def test_ctrl_c_does_not_reach_a_fold_by_itself(make_job: MakeJob) -> None:
    job = make_job("job", ENDLESS)
    with closing(on_this_machine([job], [{}], 0)) as stream:
        next(stream)
        assert os.getpgid(process_of(job).pid) != os.getpgid(0)


def test_a_fold_dies_with_its_parent(make_job: MakeJob) -> None:
    job = make_job("job", ENDLESS)
    code = f"""
        import sys, time
        from pathlib import Path
        sys.path.insert(0, {str(PROJECT)!r})
        from experiments.jobs import FoldJob, start
        folder = Path({str(job.folder)!r})
        start(FoldJob("job", {job.command!r}, folder, folder / "log", 1), {{}})
        time.sleep(60)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    process = process_of(job)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: is_gone(process), 60)


def test_sigint_is_heard_where_the_parent_blocks_it(make_job: MakeJob) -> None:
    """As in Ray's workers."""
    job = make_job("job", ENDLESS)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        with closing(on_this_machine([job], [{}], 0)) as stream:
            next(stream)
            process_of(job)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    assert (job.folder / "job.interrupted").exists()


def test_run_job(make_job: MakeJob) -> None:
    assert run_job(make_job("good", ""), {}) == ""
    assert run_job(make_job("mistake", "sys.exit(2)"), {}) == "exit code 2"
    for code, fault in (("sys.exit(1)", "exit code 1"), ("os.kill(os.getpid(), 15)", "ended by SIGTERM")):
        with pytest.raises(LostFoldError, match=fault):
            run_job(make_job("lost", code), {})


def test_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines(log, 2) == []
    log.write_bytes(b"$ python main.py\none\n$ python main.py\n")
    assert last_lines(log, 2) == []
    log.write_bytes(log.read_bytes() + b"two\n")
    assert last_lines(log, 2) == ["two"]
    log.write_bytes(log.read_bytes() + b"thr\xffee\nfour\n")
    assert last_lines(log, 2) == ["thr\ufffdee", "four"]


@pytest.mark.parametrize(
    ("gpus", "gpus_per_fold", "shares"),
    [
        (["0", "1"], 1, ["0", "1"]),
        (["0", "1"], 0.5, ["0", "1", "0", "1"]),
        (["GPU-a"], 0.25, ["GPU-a"] * 4),
        (["0"], 0.4, ["0", "0"]),
        (["0", "1", "2", "3", "4"], 2, ["0,1", "2,3"]),
        (["0"], 2, []),
    ],
)
def test_gpu_shares(gpus: list[str], gpus_per_fold: float, shares: list[str]) -> None:
    assert gpu_shares(gpus, gpus_per_fold) == shares


# ------------------------------------------------------------------------------------------------ Ray


def test_without_ray(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="--local") as caught:
        next(on_ray([make_job("job", "")], 1, 0, 0))
    pinned = re.search(r"^ray==\S+", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned and f"pip install {pinned[0]} " in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "localhost:x"])
def test_an_address_where_no_cluster_is(make_job: MakeJob, address: str) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=f"--address {address}"):
        next(on_ray([make_job("job", "")], 1, 0, 0, address))
    assert time.monotonic() - began < 60
