"""A finished run as a run of MLflow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from audit.config import NOT_IN_FINGERPRINT
from audit.errors import AuditError, UsageError, visible
from audit.export.github import run_as_markdown
from audit.export.numbers import identity_of, metrics_of
from audit.gate.results import FILES as GATE_FILES
from audit.gate.results import read_outcome
from audit.run.manifest import NAME
from audit.tables.reading import AuditRun

# Rows of samples may be hundreds of gigabytes, and pictures are in the page.
_LEFT_OUT = ("samples", "edits")
# What one request may hold, and how long older servers let a value be.
_METRICS_A_REQUEST = 1000
_PARAMS_A_REQUEST = 100
_LONGEST_VALUE = 500
_LONGEST_NOTE = 5000
_FINGERPRINT = "audit.fingerprint"
_FACTS = ("dataset", "split", "model", "weights", "layer", "masks")


class Exported(NamedTuple):
    """Where a run went.

    Attributes:
        uri: The tracking server or store.
        experiment_id: The experiment.
        run_id: The run of MLflow.
    """

    uri: str
    experiment_id: str
    run_id: str


def export_to_mlflow(
    run: AuditRun, *, tracking_uri: str | None = None, experiment: str = "audit"
) -> Exported:
    """Leave a run's numbers, settings, tables, pictures and page in MLflow.

    A run that an earlier export left in the experiment, by its fingerprint, is brought up to date.

    Args:
        run: A finished run.
        tracking_uri: A server or store; ``None`` for what MLflow is set to.
        experiment: Its name; made where there is none.

    Returns:
        Where it went.

    Raises:
        UsageError: If MLflow is not installed, or refuses the store or the experiment.
        AuditError: If it fails later.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise UsageError("MLflow is not installed", remedy="pip install 'audit[mlflow]'") from error
    try:
        client = MlflowClient(tracking_uri=tracking_uri)
        experiment_id = _find_experiment(client, experiment)
    except MlflowException as error:
        raise UsageError(
            f"MLflow refuses the experiment '{experiment}' at "
            f"{tracking_uri or 'its default store'}",
            found=_first_line(error),
            remedy="--tracking-uri http://SERVER; a store in a file or folder of this machine may "
            "need the whole of mlflow, or MLFLOW_ALLOW_FILE_STORE=true",
        ) from error
    try:
        run_id = _find_or_make(client, experiment_id, run)
        _write(client, run_id, run)
    except MlflowException as error:
        raise AuditError(
            "MLflow failed during the export",
            found=_first_line(error),
            remedy="run the same command again: it goes on with the same run of MLflow",
        ) from error
    return Exported(client.tracking_uri, experiment_id, run_id)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _find_experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _find_or_make(client: Any, experiment_id: str, run: AuditRun) -> str:
    """The run of MLflow for this run; its tag is there from the first moment."""
    facts = run.manifest
    wanted = f"tags.`{_FINGERPRINT}` = '{facts['fingerprint']}'"
    found = client.search_runs([experiment_id], filter_string=wanted, max_results=1)
    if found:
        return str(found[0].info.run_id)
    name = f"{facts['model']} on {facts['dataset']} {facts['run_id']}"
    made = client.create_run(
        experiment_id,
        tags={_FINGERPRINT: facts["fingerprint"]},
        run_name=visible(name)[:_LONGEST_VALUE],
    )
    return str(made.info.run_id)


def _write(client: Any, run_id: str, run: AuditRun) -> None:
    from mlflow.entities import Metric, Param, RunTag

    there = client.get_run(run_id).data
    finished = round(datetime.fromisoformat(run.manifest["finished"]).timestamp() * 1000)
    # What is there already would be a second point of the same curve.
    metrics = [
        Metric(name, value, finished, 0)
        for name, value in metrics_of(run).items()
        if there.metrics.get(name) != value
    ]
    # Once written, a parameter cannot be changed.
    params = [
        Param(name, value) for name, value in _params(run).items() if name not in there.params
    ]
    for batch in _batches(metrics, _METRICS_A_REQUEST):
        client.log_batch(run_id, metrics=batch)
    for batch in _batches(params, _PARAMS_A_REQUEST):
        client.log_batch(run_id, params=batch)
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in _tags(run).items()])
    for name in _artifacts(run):
        parent = str(PurePosixPath(name).parent)
        client.log_artifact(run_id, str(run.path / name), None if parent == "." else parent)
    client.set_terminated(run_id)


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _params(run: AuditRun) -> dict[str, str]:
    """What decides the run's rows: the settings of its fingerprint, and what was opened."""
    config: Mapping[str, Any] = run.manifest["config"]
    found = {name: value for name, value in config.items() if name not in NOT_IN_FINGERPRINT}
    found |= {name: run.manifest[name] for name in _FACTS}
    return {name: _as_text(value)[:_LONGEST_VALUE] for name, value in found.items()}


def _as_text(value: object) -> str:
    return visible(value) if isinstance(value, str) else json.dumps(value)


def _tags(run: AuditRun) -> dict[str, str]:
    """Fingerprints, versions, the gate's outcome, and a note for the run's page in MLflow."""
    facts = run.manifest
    found = {f"audit.{name}": value for name, value in identity_of(run).items()}
    found |= {
        f"audit.{name}": _as_text(facts[name])[:_LONGEST_VALUE]
        for name in ("device", "finished", "image_size", "versions")
    }
    outcome = read_outcome(run)
    found["audit.gate"] = "none" if outcome is None else str(outcome["outcome"])
    found["mlflow.note.content"] = run_as_markdown(run, most=5)[:_LONGEST_NOTE]
    return found


def _artifacts(run: AuditRun) -> list[str]:
    """Manifest, tables, pictures, page and the gate's outcome, as paths in the run's folder."""
    listed = [
        name for name in run.manifest["files"] if PurePosixPath(name).parts[0] not in _LEFT_OUT
    ]
    gate = [name for name in GATE_FILES if read_outcome(run) is not None]
    return [NAME, *listed, *gate]
