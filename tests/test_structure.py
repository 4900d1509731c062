"""The rooms of the package and what may import what."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import audit

PACKAGE = Path(audit.__file__).parent
# From the first room to the last; a module may import its own room and those before it.
ROOMS = (
    "errors", "validating", "config", "files", "telemetry", "storage", "devices", "memory",
    "stopping", "usercode", "products", "data", "masks", "models", "training", "inference",
    "cam", "explaining", "sanity", "score", "step", "run", "tables", "report", "inputs",
    "reopening", "work", "viewing", "pixels", "results", "redraw", "comparing", "gate", "export",
    "merging", "engines", "status", "job", "certify", "explain", "masking", "cli",
)  # fmt: skip
LEAVES = {"cam": {"errors"}, "score": {"errors", "products", "cam"}}


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("audit."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("audit.")}
    return found


def modules() -> list[tuple[str, Path]]:
    files = [file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE]
    files += [file for file in PACKAGE.glob("*.py") if not file.name.startswith("__")]
    return [(file.relative_to(PACKAGE).parts[0].removesuffix(".py"), file) for file in files]


def test_every_module_has_a_room() -> None:
    assert {room for room, _ in modules()} == set(ROOMS)


def test_imports_go_one_way() -> None:
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {other}"
        for room, file in modules()
        for other in imports_of(file)
        if ROOMS.index(other) > ROOMS.index(room)
    ]
    assert wrong == []


def test_cam_and_score_know_nothing_of_the_rest() -> None:
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {other}"
        for room, file in modules()
        for other in imports_of(file) - {room}
        if room in LEAVES and other not in LEAVES[room]
    ]
    assert wrong == []


def test_tables_and_report_never_call_the_model() -> None:
    wrong = [
        str(file.relative_to(PACKAGE))
        for room, file in modules()
        if room in ("tables", "report")
        and imports_of(file) & {"data", "masks", "models", "cam", "score", "step"}
    ]
    assert wrong == []


def test_only_the_command_reads_the_environment() -> None:
    wrong = [
        str(file.relative_to(PACKAGE))
        for room, file in modules()
        if room != "cli" and "os.environ" in file.read_text(encoding="utf-8")
    ]
    assert wrong == []


def test_public_names() -> None:
    assert audit.__all__ == [
        "__version__", "compare_runs", "explain_images", "load_run", "merge_run", "run_audit",
        "run_piece",
    ]  # fmt: skip
    assert all(getattr(audit, name) for name in audit.__all__)


def test_help_does_not_load_torch() -> None:
    code = "import sys, audit.cli; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
