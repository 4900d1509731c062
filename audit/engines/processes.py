"""Several processes of this machine, each with its own cores or its own GPU."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait

from audit.engines.messages import Died, Message, Order
from audit.engines.serving import serve
from audit.run.store import Shard
from audit.stopping import on_terminate

# How many threads numerical libraries start is settled when they are loaded.
_BEGIN = """
import json, os, sys
handle, parent, threads, paths = sys.argv[1:]
sys.path[:] = json.loads(paths)
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.putenv(name, threads)
from audit.engines.processes import begin
begin(int(handle), int(parent))
"""
_SECONDS_TO_LEAVE = 5.0
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux' prctl


class ProcessHand:
    """A process of this machine.

    Args:
        order: What it is to open.
    """

    def __init__(self, order: Order) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and code
                [
                    sys.executable,
                    "-c",
                    _BEGIN,
                    str(theirs.fileno()),
                    str(os.getpid()),
                    str(order.threads),
                    json.dumps(sys.path),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._send(order)

    @property
    def name(self) -> str:
        """See :class:`audit.engines.supervising.Hand`."""
        return f"process {self._process.pid}"

    def give(self, shards: Sequence[Shard]) -> None:
        """See :class:`audit.engines.supervising.Hand`."""
        self._send(shards)

    def stop(self) -> None:
        """See :class:`audit.engines.supervising.Hand`."""
        self._process.terminate()

    def dismiss(self) -> None:
        """See :class:`audit.engines.supervising.Hand`."""
        self._send(())
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_SECONDS_TO_LEAVE)

    def kill(self) -> None:
        """See :class:`audit.engines.supervising.Hand`."""
        self.connection.close()
        self._process.kill()
        self._process.wait()

    def hear(self) -> Message:
        """The next message; waits for one, or for the end of the process."""
        try:
            message: Message = self.connection.recv()
        except (EOFError, OSError):
            return Died(self._how())
        return message

    def ended(self) -> bool:
        """Whether the process is gone and has nothing left to say."""
        return self._process.poll() is not None and not self.connection.poll()

    def _how(self) -> str:
        try:
            code = self._process.wait(_SECONDS_TO_LEAVE)
        except subprocess.TimeoutExpired:
            return "it went silent"
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"

    def _send(self, content: object) -> None:
        with suppress(OSError):  # it is dead, which listening finds out
            self.connection.send(content)


class ProcessTeam:
    """Starts processes of this machine.

    Args:
        order_for: What a process in a given place is to open: 0, 1, …, below the number of
            processes at a time.
    """

    def __init__(self, order_for: Callable[[int], Order]) -> None:
        self._order_for = order_for
        self._places: dict[int, ProcessHand] = {}

    def hire(self) -> ProcessHand:
        """See :class:`audit.engines.supervising.Team`."""
        place = 0
        while place in self._places and not self._places[place].connection.closed:
            place += 1
        self._places[place] = ProcessHand(self._order_for(place))
        return self._places[place]

    def listen(
        self, hands: Sequence[ProcessHand], seconds: float
    ) -> Sequence[tuple[ProcessHand, Message]]:
        """See :class:`audit.engines.supervising.Team`."""
        said = {hand.connection: hand for hand in hands}
        ready = wait(list(said), seconds)
        heard = [(said[each], said[each].hear()) for each in ready if isinstance(each, Connection)]
        silent = [hand for hand in hands if hand.connection not in ready]
        # One whose pipe somebody else holds open.
        return heard + [(hand, Died(hand._how())) for hand in silent if hand.ended()]


class _Pipe:
    """The other end of a :class:`ProcessHand`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def receive(self) -> Sequence[Shard]:
        shards: Sequence[Shard] = self._connection.recv()
        return shards

    def send(self, message: Message) -> None:
        self._connection.send(message)


def begin(handle: int, parent: int) -> None:
    """Serve the process that started this one.

    Args:
        handle: Of the pipe to it.
        parent: Its number; without it this process ends.
    """
    # Ctrl-C reaches all processes of a terminal; the parent decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(parent)
    os.set_inheritable(handle, False)
    connection = Connection(handle)
    order: Order = connection.recv()
    with on_terminate(order.config.grace) as stopping:
        serve(order, _Pipe(connection), stopping)


def _die_with(parent: int) -> None:
    """Have the system end this process with its parent, also in the middle of a part."""
    with suppress(OSError, AttributeError):  # Linux alone has it; others see the pipe's end
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
