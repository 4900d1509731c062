"""The files of jobs/ are what their schedulers accept, and agree with each other."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from audit.config import AuditConfig, load_config
from tests.jobs.reading import CRON, JOBS, KUBERNETES, ROOT, SLURM, manifest, mounts, pod_templates

# Beside this interpreter, whose folder need not be on the path.
SHELLCHECK = Path(sys.executable).parent / "shellcheck"
# The oldest Kubernetes in which everything used here is on by default (retries by index).
OLDEST = "1.29"
SCRIPTS = [
    *SLURM.iterdir(), CRON / "audit-nightly", ROOT / "tests/jobs/slurm_trial.sh",
]  # fmt: skip
MANIFESTS = ["volume.yaml", "indexed-job.yaml", "merge-job.yaml", "cronjob.yaml", "rayjob.yaml"]
WITH_PODS = MANIFESTS[1:]


# Scripts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_scripts(file: Path) -> None:
    subprocess.run(["bash", "-n", file], check=True)
    found = subprocess.run([SHELLCHECK, file], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    assert "set -euo pipefail" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", sorted(SLURM.glob("*.sbatch")), ids=lambda file: file.name)
def test_options_of_sbatch_stand_before_the_first_command(file: Path) -> None:
    # Slurm reads none behind it, and does not say so.
    lines = file.read_text(encoding="utf-8").splitlines()
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    options = [n for n, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert options
    assert max(options) < first


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_units(tmp_path: Path) -> None:
    for name in ("audit-nightly.service", "audit-nightly.timer"):
        text = (CRON / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("/opt/audit/jobs", str(JOBS)), encoding="utf-8")
    found = subprocess.run(["systemd-analyze", "verify", *tmp_path.iterdir()],
                           capture_output=True, text=True, check=False)  # fmt: skip
    ours = [line for line in found.stderr.splitlines() if "audit-nightly" in line]
    assert (found.returncode, ours) == (0, [])


# Kubernetes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MANIFESTS[:-1])
@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_manifests(name: str, version: str) -> None:
    kubernetes_validate.validate(manifest(name), version, strict=True)


def test_manifests_are_read_strictly() -> None:
    document = manifest("indexed-job.yaml")
    document["spec"]["backofLimitPerIndex"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, OLDEST, strict=True)


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required),
            "additionalProperties": False}  # fmt: skip


_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
# Written by hand after the fields of ray.io/v1 that KubeRay documents, those used here alone. Pods
# are held against Kubernetes' own schema.
_RAY_JOB = _object(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=_object(("name",), name=_TEXT, labels=_TEXTS),
    spec=_object(
        ("entrypoint", "rayClusterSpec"),
        entrypoint=_TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        backoffLimit=_COUNT,
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=_COUNT,
        activeDeadlineSeconds={"type": "integer", "minimum": 1},
        rayClusterSpec=_object(
            ("headGroupSpec",),
            rayVersion=_TEXT,
            headGroupSpec=_object(
                ("rayStartParams", "template"), rayStartParams=_TEXTS, template={"type": "object"}
            ),
            workerGroupSpecs={
                "type": "array",
                "items": _object(
                    ("groupName", "rayStartParams", "template", "minReplicas", "maxReplicas"),
                    groupName=_TEXT,
                    replicas=_COUNT,
                    minReplicas=_COUNT,
                    maxReplicas=_COUNT,
                    rayStartParams=_TEXTS,
                    template={"type": "object"},
                ),
            },
        ),
    ),
)


def test_ray_job() -> None:
    document = manifest("rayjob.yaml")
    jsonschema.Draft202012Validator(_RAY_JOB).validate(document)
    templates = [*pod_templates(document)]
    assert len(templates) == 2
    for template in templates:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}} | template
        kubernetes_validate.validate(pod, OLDEST, strict=True)
    lock = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"ray=={document['spec']['rayClusterSpec']['rayVersion']}" in lock


@pytest.mark.parametrize("name", WITH_PODS)
def test_pods_may_do_nothing_that_they_need_not(name: str) -> None:
    for template in pod_templates(manifest(name)):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        # What is written with a read-only root: temporary files, shared memory, reports.
        assert {"/tmp", "/dev/shm", "/srv/audit/reports"} < set(mounts(template).values())
        assert set(mounts(template)) == {volume["name"] for volume in spec["volumes"]}


@pytest.mark.parametrize("name", WITH_PODS)
def test_pods_have_more_time_than_audit_takes_to_stop(name: str) -> None:
    for template in pod_templates(manifest(name)):
        (container,) = template["spec"]["containers"]
        told = [text for text in container.get("args", ()) if text.startswith("--grace=")]
        grace = float(told[0].removeprefix("--grace=")) if told else AuditConfig().grace
        assert template["spec"]["terminationGracePeriodSeconds"] >= 2 * grace


def test_indexed_job_has_a_pod_for_each_piece() -> None:
    spec = manifest("indexed-job.yaml")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["completionMode"] == "Indexed"
    assert f"--shard=auto/{spec['completions']}" in container["args"]


@pytest.mark.parametrize("name", ["indexed-job.yaml", "merge-job.yaml", "cronjob.yaml"])
def test_wrong_usage_ends_a_job_at_once_and_a_stop_is_retried(name: str) -> None:
    document = manifest(name)
    spec = document["spec"].get("jobTemplate", document)["spec"]
    exit_code, disruption = spec["podFailurePolicy"]["rules"]
    assert exit_code["action"] == "FailJob"
    codes = exit_code["onExitCodes"]["values"]
    assert 2 in codes
    assert not {1, 143} & set(codes)
    assert disruption["action"] == "Ignore"
    # Kubernetes refuses the policy with any other.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_pieces_and_merge_read_one_job_and_one_run() -> None:
    named = {
        text
        for name in ("indexed-job.yaml", "merge-job.yaml")
        for template in pod_templates(manifest(name))
        for text in template["spec"]["containers"][0]["args"]
        if text.startswith(("--run", "--config"))
    }
    assert len(named) == 2


def test_job_file_is_read_and_mounted() -> None:
    settings = load_config(KUBERNETES / "job.toml", {})
    kustomization = manifest("kustomization.yaml")
    (generated,) = kustomization["configMapGenerator"]
    assert generated["files"] == ["job.toml"]
    for name in WITH_PODS:
        for template in pod_templates(manifest(name)):
            volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
            assert volumes["job"]["configMap"]["name"] == generated["name"]
            assert mounts(template)["reports"] == str(settings.out)
            claim = volumes["reports"]["persistentVolumeClaim"]["claimName"]
            assert claim == manifest("volume.yaml")["metadata"]["name"]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
def test_kustomization_names_every_image(tmp_path: Path) -> None:
    copy = shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    file = copy / "kustomization.yaml"
    text = re.sub(r"# (- \w+\.yaml)", r"\1", file.read_text(encoding="utf-8"))
    assert sorted(yaml.safe_load(text)["resources"]) == sorted(MANIFESTS)
    file.write_text(text, encoding="utf-8")
    built = subprocess.run(["kubectl", "kustomize", copy], capture_output=True, text=True,
                           check=True).stdout  # fmt: skip
    images = [
        container["image"]
        for template in pod_templates([*yaml.safe_load_all(built)])
        for container in template["spec"]["containers"]
    ]
    assert len(images) == 5
    assert len(set(images)) == 1
    assert images[0].startswith("registry.example/audit:")


# The image --------------------------------------------------------------------------------------


def test_image_is_made_of_what_the_build_may_see() -> None:
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, flags=re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert {Path(source).parts[0] for source in copied} == allowed
    assert all((ROOT / source).exists() for source in copied)
    # What the wheel is built from must be among it.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {project["project"]["readme"], "audit", "pyproject.toml"} <= allowed
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["audit"]
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", text, flags=re.MULTILINE)
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])


def test_image_runs_as_the_user_of_the_pods() -> None:
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    (user,) = re.findall(r"^USER (\d+):\d+$", text, flags=re.MULTILINE)
    assert 'ENTRYPOINT ["audit"]' in text
    for name in WITH_PODS:
        for template in pod_templates(manifest(name)):
            assert template["spec"]["securityContext"]["runAsUser"] == int(user)
