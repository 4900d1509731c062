"""What a run tells while it works: events for logs, numbers for Prometheus."""

from audit.telemetry.logs import JsonFormatter, json_lines, tell_exit
from audit.telemetry.metrics import Metrics
from audit.telemetry.telling import Telemetry

__all__ = ["JsonFormatter", "Metrics", "Telemetry", "json_lines", "tell_exit"]
