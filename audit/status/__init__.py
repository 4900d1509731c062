"""How far a run is: which parts are done, by whom, how fast, and what is left."""

from audit.status.reading import Claim, Damage, Pace, Process, RunStatus, run_status
from audit.status.telling import as_json, describe_status

__all__ = [
    "Claim", "Damage", "Pace", "Process", "RunStatus", "as_json", "describe_status", "run_status"
]  # fmt: skip
