"""What the files of jobs/ say, so that tests run the very lines that users run."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "jobs"
SLURM = JOBS / "slurm"
KUBERNETES = JOBS / "kubernetes"
CRON = JOBS / "cron"


def manifest(name: str) -> Any:
    """A file of jobs/kubernetes."""
    return yaml.safe_load((KUBERNETES / name).read_text(encoding="utf-8"))


def pod_templates(document: Any) -> Iterator[dict[str, Any]]:
    """Every pod template in a manifest, wherever it stands."""
    if isinstance(document, dict):
        if "containers" in document.get("spec", {}):
            yield document
        for value in document.values():
            yield from pod_templates(value)
    elif isinstance(document, list):
        for value in document:
            yield from pod_templates(value)


def mounts(template: dict[str, Any]) -> dict[str, str]:
    """Where a pod sees each of its volumes, by the volume's name."""
    return {
        mount["name"]: mount["mountPath"]
        for container in template["spec"]["containers"]
        for mount in container["volumeMounts"]
    }


def small_job(place: Path, *, limit: int = 100) -> Path:
    """The job file of jobs/kubernetes with its reports in ``place``, for fewer images."""
    text = (KUBERNETES / "job.toml").read_text(encoding="utf-8")
    (claim,) = re.findall(r'^out = "(.*?)"', text, flags=re.MULTILINE)
    text = text.replace(f'"{claim}"', f'"{place / "reports"}"')
    text += f'limit = {limit}\nedits = "none"\ngrids = false\n'
    assert tomllib.loads(text)["out"] == str(place / "reports")
    place.mkdir(parents=True, exist_ok=True)
    file = place / "job.toml"
    file.write_text(text, encoding="utf-8")
    return file


def environment(**more: str) -> dict[str, str]:
    """This process's environment with ``audit`` on PATH, and none of a scheduler's variables."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM", "JOB_COMPLETION", "AUDIT_"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1"} | more
