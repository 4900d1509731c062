"""Does an image classifier look at the object or at the background?

Example:
    >>> from audit import run_audit
    >>> run_audit(dataset="demo", limit=20, out=tmp).manifest["status"]
    'complete'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "__version__", "compare_runs", "explain_images", "load_run", "merge_run", "run_audit",
    "run_piece",
]  # fmt: skip

if TYPE_CHECKING:
    from audit.comparing import compare_runs
    from audit.explain import explain_images
    from audit.job import merge_run, run_audit, run_piece
    from audit.viewing import load_run


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `audit --help` must not wait for it.
    if name == "run_audit":
        from audit.job import run_audit

        return run_audit
    if name == "run_piece":
        from audit.job import run_piece

        return run_piece
    if name == "merge_run":
        from audit.job import merge_run

        return merge_run
    if name == "explain_images":
        from audit.explain import explain_images

        return explain_images
    if name == "load_run":
        from audit.viewing import load_run

        return load_run
    if name == "compare_runs":
        from audit.comparing import compare_runs

        return compare_runs
    raise AttributeError(f"module 'audit' has no attribute '{name}'")
