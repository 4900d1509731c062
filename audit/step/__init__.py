"""One batch through model, CAM and score: the fused step."""

from audit.step.fused import AuditStep, StepOutput, prefix_of
from audit.step.rehearsal import rehearse
from audit.step.statuses import FAMILY_SCORES, STATUSES, status_code

__all__ = [
    "FAMILY_SCORES",
    "STATUSES",
    "AuditStep",
    "StepOutput",
    "prefix_of",
    "rehearse",
    "status_code",
]
