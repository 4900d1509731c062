"""Finished runs for other tools: MLflow, TensorBoard, GitHub; see docs/integrations.md."""

from audit.export.github import append_summary, run_as_markdown

__all__ = ["append_summary", "run_as_markdown"]
