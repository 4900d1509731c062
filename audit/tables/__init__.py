"""From rows to tables: per class, confusions, statistics; and reading a finished run."""

from audit.tables.reading import AuditRun, load_run

__all__ = ["AuditRun", "load_run"]
