"""Rules that a run must keep for a pipeline to go on; see docs/gate.md."""

from audit.gate.baseline import open_baseline
from audit.gate.evaluation import Evaluation, evaluate, outcome_lines
from audit.gate.markdown import as_markdown
from audit.gate.results import read_outcome, write_results
from audit.gate.settings import GateSettings, load_gate

__all__ = [
    "Evaluation",
    "GateSettings",
    "as_markdown",
    "evaluate",
    "load_gate",
    "open_baseline",
    "outcome_lines",
    "read_outcome",
    "write_results",
]
