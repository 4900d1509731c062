"""The command lines of jobs/, as they are written there, with schedulers' variables by hand."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.jobs.reading import CRON, SLURM, environment, manifest, mounts, pod_templates, small_job

AuditHere = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def nightly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A finished run in one process, by cron's script: its folder, and the folder of logs."""
    place = tmp_path_factory.mktemp("nightly")
    logs = place / "logs"
    logs.mkdir()
    for name in ("audit-2020-01-01.log", "other.log"):
        (logs / name).write_text("old", encoding="utf-8")
        os.utime(logs / name, (0, 0))
    done = run_nightly(small_job(place), logs, AUDIT_METRICS=str(place / "audit.prom"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (run,) = (place / "reports" / "demo" / "cnn").iterdir()
    return run, logs


def run_nightly(job: Path, logs: Path, **more: str) -> subprocess.CompletedProcess[str]:
    # As crontab says it, but for the place of the job file.
    (line,) = (
        text
        for text in (CRON / "crontab").read_text(encoding="utf-8").splitlines()
        if re.match(r"\d", text)
    )
    command, config = line.split()[5:]
    assert config == "/etc/audit/job.toml"
    variables = environment(AUDIT_LOGS=str(logs), **more)
    return subprocess.run([CRON / command, job], env=variables, capture_output=True, text=True,
                          check=False, timeout=300)  # fmt: skip


def contents(run: Path) -> dict[str, str]:
    """Digests of what must not depend on who computed a run."""
    files = [*run.glob("samples/part-*.parquet"), *run.glob("*.parquet")]
    assert len(files) > 8
    return {str(file.relative_to(run)): sha256(file.read_bytes()).hexdigest() for file in files}


# cron -------------------------------------------------------------------------------------------


def test_nightly_logs_by_date_and_drops_old_logs(nightly: tuple[Path, Path]) -> None:
    _, logs = nightly
    names = sorted(file.name for file in logs.iterdir())
    assert names[1:] == ["lock", "other.log"]
    assert re.fullmatch(r"audit-\d{4}-\d{2}-\d{2}\.log", names[0])
    assert "Report:" in (logs / names[0]).read_text(encoding="utf-8")
    assert "# HELP" in (logs.parent / "audit.prom").read_text(encoding="utf-8")


def test_nightly_does_not_start_twice(nightly: tuple[Path, Path], tmp_path: Path) -> None:
    _, logs = nightly
    with (logs / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run_nightly(tmp_path / "job.toml", logs)
    assert done.returncode == 75
    assert "still runs" in done.stdout


def test_nightly_tells_what_is_wrong(tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text("dataste = 'demo'\n", encoding="utf-8")
    done = run_nightly(job, tmp_path / "logs")
    assert done.returncode == 2
    assert "does not run as it is set up" in done.stdout
    assert "did you mean 'dataset'?" in done.stdout


def test_nightly_ends_at_its_limit(tmp_path: Path) -> None:
    done = run_nightly(small_job(tmp_path, limit=900), tmp_path / "logs", AUDIT_LIMIT="0.5")
    assert done.returncode == 143
    assert "the next night goes on" in done.stdout


# Slurm ------------------------------------------------------------------------------------------


def run_batch(name: str, job: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """What slurmd does: the script in bash, with variables."""
    variables = environment(AUDIT_CONFIG=str(job), AUDIT_RUN="pieces", SLURM_CPUS_PER_TASK="1")
    return subprocess.run(["bash", SLURM / name], env=variables | more, capture_output=True,
                          text=True, check=False, timeout=300)  # fmt: skip


def task(index: int, count: int) -> dict[str, str]:
    return {
        "SLURM_ARRAY_TASK_ID": str(index),
        "SLURM_ARRAY_TASK_MIN": "0",
        "SLURM_ARRAY_TASK_COUNT": str(count),
    }


def test_array_and_merge_make_the_same_run(
    nightly: tuple[Path, Path], tmp_path: Path, audit_here: AuditHere
) -> None:
    job = small_job(tmp_path)
    first = run_batch("array.sbatch", job, **task(1, 2))
    assert first.returncode == 0, first.stderr
    assert "piece 1/2: 2 parts" in first.stdout
    # Another process would be the same, and take longer.
    line = ["run", "--config", job, "--run", "pieces", "--shard", "0/2"]
    assert audit_here(*line).returncode == 0
    merged = run_batch("merge.sbatch", job)
    assert merged.returncode == 0, merged.stderr
    assert contents(tmp_path / "reports/demo/cnn/pieces") == contents(nightly[0])


def test_sigterm_to_the_batch_shell_is_sigterm_to_audit(tmp_path: Path) -> None:
    job = small_job(tmp_path, limit=900)
    slow = 'method = "scorecam"\n'
    job.write_text(slow + job.read_text(encoding="utf-8"), encoding="utf-8")
    parts = tmp_path / "reports/demo/cnn/pieces/samples"
    variables = environment(AUDIT_CONFIG=str(job), AUDIT_RUN="pieces", SLURM_CPUS_PER_TASK="1")
    batch = subprocess.Popen(["bash", SLURM / "array.sbatch"], env=variables | task(0, 1),
                             stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    try:
        last = time.monotonic() + 120
        while not [*parts.glob("part-*.parquet")]:
            assert batch.poll() is None, batch.communicate()
            assert time.monotonic() < last
            time.sleep(0.05)
        batch.send_signal(signal.SIGTERM)
        _, said = batch.communicate(timeout=60)
    finally:
        batch.kill()
    assert batch.returncode == 143
    assert "parts are kept" in said


@pytest.mark.parametrize("name", ["array.sbatch", "merge.sbatch", "ray.sbatch"])
def test_batch_files_say_what_they_need(name: str) -> None:
    done = subprocess.run(["bash", SLURM / name], env=environment(), capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode != 0
    assert "AUDIT_CONFIG: is not set: the job file (TOML)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "three arguments"),
        (["absent.toml", "week-47", "4"], "absent.toml does not exist"),
        ([__file__, "week 47", "4"], "'week 47' cannot name a run"),
        ([__file__, "week-47", "0"], "'0' is no number of pieces"),
        ([__file__, "week-47", "4"], "the command sbatch is not on PATH"),
    ],
)
def test_submit_refuses(arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "bash").symlink_to("/bin/bash")
    done = subprocess.run(["/bin/bash", SLURM / "submit.sh", *arguments],
                          env={"PATH": str(tmp_path)}, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr


def test_submit_lets_the_merge_wait_for_the_array(tmp_path: Path) -> None:
    # A note-taker in sbatch's place; tests/jobs/slurm_trial.sh has the real one.
    sbatch = tmp_path / "sbatch"
    notes = tmp_path / "notes"
    sbatch.write_text(f'#!/bin/sh\necho "$AUDIT_RUN $*" >>{notes}\necho "7;cluster"\n')
    sbatch.chmod(0o755)
    variables = environment()
    variables["PATH"] = f"{tmp_path}:{variables['PATH']}"
    done = subprocess.run([SLURM / "submit.sh", small_job(tmp_path), "week-47", "16", "--time=5"],
                          env=variables, capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout == "array 7\nmerge 7\n"
    assert notes.read_text().splitlines() == [
        f"week-47 --parsable --export=ALL --array=0-15 --time=5 {SLURM}/array.sbatch",
        f"week-47 --parsable --export=ALL --dependency=afterany:7 --time=5 {SLURM}/merge.sbatch",
    ]


# Kubernetes -------------------------------------------------------------------------------------


def arguments(name: str, job: Path) -> list[str]:
    """A manifest's command line; the mounted job file is ``job``."""
    (template,) = pod_templates(manifest(name))
    (container,) = template["spec"]["containers"]
    return [text.replace(f"{mounts(template)['job']}/job.toml", str(job))
            for text in container["args"]]  # fmt: skip


def test_indexed_job_and_merge_make_the_same_run(
    nightly: tuple[Path, Path],
    tmp_path: Path,
    audit_here: AuditHere,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = small_job(tmp_path)
    *others, last = range(manifest("indexed-job.yaml")["spec"]["completions"])
    for index in others:
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
        done = audit_here(*arguments("indexed-job.yaml", job))
        assert done.returncode == 0, done.stderr
    early = audit_here(*arguments("merge-job.yaml", job))
    assert early.returncode == 1
    assert "part 3 (samples 75 to 99)" in early.stderr
    monkeypatch.setenv("JOB_COMPLETION_INDEX", str(last))
    assert audit_here(*arguments("indexed-job.yaml", job)).returncode == 0
    monkeypatch.delenv("JOB_COMPLETION_INDEX")
    merged = audit_here(*arguments("merge-job.yaml", job))
    assert merged.returncode == 0, merged.stderr
    assert contents(tmp_path / "reports/demo/cnn/main") == contents(nightly[0])


def test_cron_job_finds_a_complete_run(nightly: tuple[Path, Path], audit_here: AuditHere) -> None:
    run, _ = nightly
    before = (run / "manifest.json").read_bytes()
    done = audit_here(*arguments("cronjob.yaml", run.parents[3] / "job.toml"))
    assert done.returncode == 0, done.stderr
    assert (run / "manifest.json").read_bytes() == before


def test_ray_job_finds_a_complete_run(
    nightly: tuple[Path, Path], tmp_path: Path, audit_here: AuditHere
) -> None:
    # Nothing is left to compute, so no cluster starts: the line is what is tried here.
    word, *line = shlex.split(manifest("rayjob.yaml")["spec"]["entrypoint"])
    assert word == "audit"
    job = small_job(tmp_path)
    line = [text.replace("/etc/audit/job.toml", str(job)) for text in line]
    local = [text for text in line if text != "--engine=ray"]
    assert len(line) - len(local) == 1
    assert audit_here(*local).returncode == 0
    done = audit_here(*line)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "reports/demo/cnn/main") == contents(nightly[0])
