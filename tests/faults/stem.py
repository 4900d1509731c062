"""A process that has all libraries loaded and forks the command each time: half of the work spared.

Reads orders as lines of JSON, and writes a line for each process begun and each that ended. The
processes are as those of ``python -m audit``, in sessions of their own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from typing import Any

_LOOK = 0.005


def tell(**facts: Any) -> None:
    sys.__stdout__.write(json.dumps(facts) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def become(order: dict[str, Any]) -> None:
    """Make the process that was forked one of its own."""
    os.setsid()
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, theirs in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(ours, theirs)
    os.close(log)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    sys.argv = ["audit", *order["words"]]
    if order.get("host"):
        import ctypes

        if ctypes.CDLL(None).unshare(0x04000000):  # CLONE_NEWUTS
            sys.exit("another host name is not allowed here")
        socket.sethostname(order["host"])


def orders() -> None:
    """Fork for each order; returns in the process that was forked."""
    living: set[int] = set()
    waiting = b""
    while True:
        ready, _, _ = select.select([0], [], [], _LOOK if living else None)
        if ready:
            read = os.read(0, 1 << 16)
            if not read:
                sys.exit()
            waiting += read
        while b"\n" in waiting:
            line, _, waiting = waiting.partition(b"\n")
            order = json.loads(line)
            pid = os.fork()
            if not pid:
                become(order)
                return
            living.add(pid)
            tell(began=pid)
        for pid in list(living):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                living.remove(pid)
                tell(ended=pid, code=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    import cleanlab.filter  # noqa: F401
    import jinja2  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.linear_model  # noqa: F401

    import audit.job
    import audit.report.summary
    from audit.cli import main

    # Ctrl-C of whoever plays is not for the commands.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tell(ready=audit.__file__)
    orders()
    # Also where whoever plays was started in the background, without Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
