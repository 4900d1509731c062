"""The kinds of faults: each disturbs one run, at a moment that is drawn."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.bench import Reached, Scene, Skipped
from tests.faults.processes import Process, Running, all_gone, descendants

PROCESSES = ("--processes", "2")
RAY = ("--engine", "ray", "--processes", "2")
# Orphaned processes notice at once, or when they next speak.
_SECONDS_TO_FOLLOW = 30.0
# Ray's own agents look for their parent now and then.
_SECONDS_OF_RAY = 120.0
# Beyond the grace: the batch at hand, and Python's own end.
_SECONDS_TO_STOP = 15.0
_CLOCKS = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
)
_SAID_HELD = "another audit is writing"


def _kill(
    scene: Scene,
    running: Running,
    reached: Reached,
    *,
    group: bool = False,
    seconds: float = _SECONDS_TO_FOLLOW,
) -> None:
    """SIGKILL at a moment, and see that what it started follows."""
    if not running.catch(reached):
        scene.say("it had ended")
        scene.end(running, 0)
        return
    children = running.children()
    running.send(signal.SIGKILL, group=group)
    # Those that were halted with it.
    running.send(signal.SIGCONT, group=True)
    for child in children:
        child.send(signal.SIGCONT)
    scene.made()
    scene.end(running)
    if not all_gone(children, seconds):
        left = [child.title[:80] for child in children if child.alive]
        scene.problems.append(f"processes went on without their parent: {left}")
        for child in children:
            child.send(signal.SIGKILL)


def driver(scene: Scene) -> None:
    """SIGKILL of the command that computes by itself."""
    running = scene.start(scene.command(), fresh=scene.draw.random() < 0.25)
    _kill(scene, running, scene.any_moment(running, scene.bench.measure()))


def driver_twice(scene: Scene) -> None:
    """SIGKILL, and of the rerun as well."""
    for _ in range(2):
        running = scene.start(scene.command())
        _kill(scene, running, scene.any_moment(running, scene.bench.measure()))


def decoders(scene: Scene) -> None:
    """SIGKILL of a process that decodes."""
    scene.commands = [scene.command("--workers", "1")]
    running = scene.start(scene.commands[0])
    reached = scene.while_computing()
    if running.until(reached):
        found = [child for child in running.children() if "resource_tracker" not in child.title]
        scene.say(f"{len(found)} decoding")
        for child in found[:1]:
            child.send(signal.SIGKILL)
            scene.made()
    scene.end(running, 0, 1)


def other_host(scene: Scene) -> None:
    """SIGKILL on one machine, rerun on another, which cannot know whether the first one lives."""
    if os.geteuid() != 0:
        raise Skipped("another host name needs root")
    running = scene.start(scene.command())
    _kill(scene, running, scene.unfinished_file())
    scene.host = "another-machine"


def worker(scene: Scene) -> None:
    """SIGKILL of one of several processes of a run."""
    scene.commands = [scene.command(*PROCESSES)]
    running = scene.start(scene.commands[0])
    if running.until(scene.while_computing()):
        for child in _computing(running)[:1]:
            child.send(signal.SIGKILL)
            scene.made()
    scene.end(running, 0, 1)


def workers_twice(scene: Scene) -> None:
    """SIGKILL of two of them, one after the other."""
    scene.commands = [scene.command(*PROCESSES)]
    running = scene.start(scene.commands[0])
    most = scene.bench.job.parts - 2
    first = scene.draw.randint(1, most - 1)
    for count in (first, scene.draw.randint(first + 1, most)):
        if running.until(scene.after_parts(count)):
            found = _computing(running)
            if found:
                scene.draw.choice(found).send(signal.SIGKILL)
                scene.made()
    scene.end(running, 0, 1)


def driver_of_processes(scene: Scene) -> None:
    """SIGKILL of the command that has others compute; they must go too."""
    seconds = scene.bench.measure(*PROCESSES)
    scene.commands = [scene.command(*PROCESSES)]
    running = scene.start(scene.commands[0])
    _kill(scene, running, scene.any_moment(running, seconds))


def group(scene: Scene) -> None:
    """SIGKILL of all processes of a run at once, as a scheduler or the kernel may."""
    seconds = scene.bench.measure(*PROCESSES)
    scene.commands = [scene.command(*PROCESSES)]
    running = scene.start(scene.commands[0])
    reached = scene.any_moment(running, seconds)
    _kill(scene, running, reached, group=True)


def _computing(running: Running) -> list[Process]:
    return [child for child in running.children() if "audit.engines" in child.title]


# Pieces of a run


def _pieces(scene: Scene, count: int = 2) -> list[list[str]]:
    return [scene.command("--shard", f"{piece}/{count}") for piece in range(count)]


def _merge(scene: Scene) -> list[str]:
    return ["merge", *scene.command()[1:]]


def rank(scene: Scene) -> None:
    """SIGKILL of one of the commands that compute a piece each; the merge says what is missing."""
    pieces = _pieces(scene)
    scene.commands = [*pieces, _merge(scene)]
    ranks = [scene.start(piece) for piece in pieces]
    victim = scene.draw.randrange(2)
    half = scene.bench.job.parts // 2
    number = victim * half + scene.draw.randrange(half)
    reached = scene.draw.choice(
        [lambda: scene.claimed(number), scene.unfinished_file, scene.unproven_part]
    )()
    scene.say(f"rank {victim}")
    _kill(scene, ranks[victim], reached)
    scene.end(ranks[1 - victim], 0)
    merging = scene.start(_merge(scene))
    if len(list((scene.folder / "samples").glob("part-*.parquet"))) < scene.bench.job.parts:
        scene.end(merging, 1)
        scene.expect("missing" in merging.said, f"it does not say so: {merging.said[-400:]}")
    else:
        scene.end(merging, 0)


def merging(scene: Scene) -> None:
    """SIGKILL of the merge."""
    pieces = _pieces(scene, 1)
    scene.commands = [_merge(scene)]
    for piece in pieces:
        scene.end(scene.start(piece), 0)
    running = scene.start(_merge(scene))
    choices: list[Callable[[], Reached]] = [scene.tabulated, scene.drawn]
    if scene.bench.job.edits:
        choices += [scene.edited]
    choices += [lambda: scene.after_share(running, scene.bench.measure(), scene.draw.random())]
    _kill(scene, running, scene.draw.choice(choices)())


def two_full(scene: Scene) -> None:
    """Two full runs in one folder: one does it, the other is told so, or finds it done."""
    first, second = scene.start(scene.command()), scene.start(scene.command())
    scene.say("begun together")
    scene.made()
    codes = sorted([scene.end(first, 0, 1), scene.end(second, 0, 1)])
    scene.expect(codes in ([0, 0], [0, 1]), f"they ended with {codes}")
    said = first.said + second.said
    scene.expect(codes == [0, 0] or _SAID_HELD in said, f"not said why: {said[-600:]}")
    scene.codes.sort(reverse=True)  # the run is complete


def two_alike(scene: Scene) -> None:
    """Three ranks of which two have the same piece."""
    one, other = _pieces(scene)
    scene.commands = [_merge(scene)]
    ranks = [scene.start(command) for command in (one, one, other)]
    scene.say("begun together")
    scene.made()
    for running in ranks:
        scene.end(running, 0)
    scene.end(scene.start(_merge(scene)), 0)


def early_merge(scene: Scene) -> None:
    """A merge while a rank still computes."""
    one, other = _pieces(scene)
    scene.commands = [_merge(scene)]
    scene.end(scene.start(one), 0)
    late = scene.start(other)
    reached = scene.claimed(scene.bench.job.parts // 2)
    if late.until(reached):
        # Held there, for the merge takes longer to begin than the rank has to end.
        late.send(signal.SIGSTOP)
        scene.stack.callback(late.send, signal.SIGCONT)
        merge = scene.start(_merge(scene))
        scene.made()
        scene.end(merge, 1)
        told = _SAID_HELD in merge.said or "missing" in merge.said
        scene.expect(told, f"the merge does not say why: {merge.said[-400:]}")
        late.send(signal.SIGCONT)
    scene.end(late, 0)
    scene.end(scene.start(_merge(scene)), 0)


def zombie(scene: Scene) -> None:
    """A rank that is stopped, overtaken by another with the same piece, and goes on afterwards."""
    one, other = _pieces(scene)
    scene.commands = [other, _merge(scene)]
    late = scene.start(one)
    half = scene.bench.job.parts // 2
    reached = scene.claimed(scene.draw.randrange(half))
    if not late.until(reached):
        scene.end(late, 0)
        return
    late.send(signal.SIGSTOP)
    scene.stack.callback(late.send, signal.SIGCONT)
    scene.made()
    scene.end(scene.start(one), 0)
    before = {path: _identity(path) for path in scene.folder.glob("samples/part-*.parquet")}
    scene.expect(len(before) == half, f"{len(before)} parts of a piece of {half}")
    if scene.draw.random() < 0.5:
        scene.say("killed after it went on")
        late.send(signal.SIGCONT)
        late.send(signal.SIGKILL)
        scene.end(late)
    else:
        scene.say("goes on")
        late.send(signal.SIGCONT)
        scene.end(late, 0)
    now = {path: _identity(path) for path in scene.folder.glob("samples/part-*.parquet")}
    scene.expect(now == before, "it replaced parts of the one that had overtaken it")


def _identity(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_ino, facts.st_mtime_ns


# Signals that ask


def _stop(scene: Scene, where: tuple[str, ...], number: signal.Signals, *, group: bool) -> None:
    scene.commands = [scene.command(*where)]
    grace = scene.draw.choice([0.0, 20.0])
    running = scene.start([*scene.command(*where), "--grace", f"{grace:g}"])
    job = scene.bench.job
    choices: list[Callable[[], Reached]] = [
        lambda: scene.after_parts(scene.draw.randint(1, job.parts - 2)),
        lambda: scene.claimed(scene.draw.randint(1, job.parts - 2)),
        scene.all_parts,
    ]
    if job.edits:
        choices.append(scene.edited)
    if job.masks == "estimated":
        choices.append(scene.masking)
    reached = scene.draw.choice(choices)()
    scene.say(f"grace {grace:g}" + (", to all processes" if group else ""))
    if not running.until(reached):
        scene.end(running, 0)
        return
    children = running.children()
    before = len(list(scene.folder.glob("samples/_part-*.json")))
    asked = time.monotonic()
    running.send(number, group=group)
    scene.made()
    expected = {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    scene.end(running, expected)
    took = time.monotonic() - asked
    scene.say(f"ended after {took:.1f} s")
    scene.expect(took < grace + _SECONDS_TO_STOP, f"it took {took:.0f} s")
    scene.expect("parts are kept" in running.said, f"it says: {running.said[-300:]}")
    scene.expect(all_gone(children, _SECONDS_TO_FOLLOW), "its processes went on")
    after = len(list(scene.folder.glob("samples/_part-*.json")))
    scene.expect(after >= before, f"{before} parts before, {after} after")
    if where not in (PROCESSES, RAY):  # what others leave that are ended at once, a rerun removes
        left = [path.name for path in scene.out.rglob("*.writing")]
        scene.expect(not left, f"unfinished files: {left}")


def sigterm(scene: Scene) -> None:
    """SIGTERM to the command, or to it and its decoding process."""
    where = scene.draw.choice([(), ("--workers", "1")])
    _stop(scene, where, signal.SIGTERM, group=bool(where))


def sigterm_processes(scene: Scene) -> None:
    """SIGTERM to a command that has others compute, alone or to all of them."""
    _stop(scene, PROCESSES, signal.SIGTERM, group=scene.draw.random() < 0.5)


def sigint(scene: Scene) -> None:
    """SIGINT to all processes of the terminal, as Ctrl-C does."""
    _stop(scene, scene.draw.choice([(), PROCESSES]), signal.SIGINT, group=True)


# Disk, clock, damage


def disk_full(scene: Scene) -> None:
    """A disk that is full before the end; then it is enlarged."""
    scene.out.mkdir(parents=True)
    needed = sum(p.stat().st_size for p in scene.bench.undisturbed.rglob("*") if p.is_file())
    size = int(needed * scene.draw.uniform(0.1, 0.95)) // 4096 * 4
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(scene.out)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Skipped(f"a small disk cannot be mounted: {done.stderr.strip()[:80]}")
    scene.stack.callback(
        subprocess.run, ["umount", "--lazy", str(scene.out)], check=False, capture_output=True
    )
    where = scene.draw.choice([(), (), PROCESSES])
    scene.commands = [scene.command(*where)]
    scene.say(f"{size} of {needed // 1024} KiB")
    running = scene.start(scene.commands[0])
    scene.made()
    scene.end(running, 1)
    said = "No space left" in running.said and "free some space" in running.said
    scene.expect(said, f"it says: {running.said[-600:]}")
    grown = ["mount", "-o", "remount,size=256m", str(scene.out)]
    subprocess.run(grown, check=True, capture_output=True)


def clock(scene: Scene) -> None:
    """The clock is set a day back or forth in the middle, and the command may be killed later."""
    library = next((name for name in _CLOCKS if Path(name).exists()), None)
    if library is None:
        raise Skipped("needs libfaketime")
    told = scene.bench.scratch / f"clock-{scene.out.name}"
    told.write_text("+0\n")
    step = scene.draw.choice(["-1d", "+1d"])
    environment = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(told),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    # By itself: several processes sleep, which this library refuses.
    running = scene.start(scene.commands[0], fresh=True, **environment)
    kill = scene.draw.random() < 0.5
    if running.until(scene.after_parts(scene.draw.randint(1, 4))):
        told.write_text(f"{step}\n")
        scene.say(f"set {step}")
        scene.made()
        later = scene.draw.choice([scene.all_parts, scene.tabulated])
        if kill:
            scene.say("then killed")
            _kill(scene, running, later())
            return
    scene.end(running, 0)


# What a rerun finds damaged: the files, and what is needed of them.
_DAMAGED = (
    "samples/part-*.parquet", "samples/_part-*.json", "edits/part-*.parquet",
    "edits/_part-*.json", "classes.parquet", "thumbs.parquet", "index.html", "plan.json",
    "manifest.json",
)  # fmt: skip


def damage(scene: Scene) -> None:
    """Files of a run, half done or complete, are damaged before the rerun."""
    running = scene.start(scene.command())
    if scene.draw.random() < 0.5:
        _kill(scene, running, scene.any_moment(running, scene.bench.measure()))
    else:
        scene.say("complete")
        scene.end(running, 0)
    found = [path for pattern in _DAMAGED for path in sorted(scene.folder.glob(pattern))]
    if not found:
        return
    for path in scene.draw.sample(found, min(len(found), scene.draw.randint(1, 3))):
        how = _damage(scene.draw, path)
        scene.say(f"{path.name} {how}")
        scene.made()
    scene.codes.append("damaged")
    plan = scene.folder / "plan.json"
    if "plan.json" in scene.moment:
        refused = scene.start(scene.command())
        scene.end(refused, 1)
        scene.expect("plan.json" in refused.said, f"it says: {refused.said[-400:]}")
        plan.unlink(missing_ok=True)


def _damage(draw: Any, path: Path) -> str:
    content = path.read_bytes()
    # One changed byte in what has a digest; files without one must not read any more.
    digested = path.name not in ("plan.json", "manifest.json")
    how = draw.choice(["cut", "empty", "flipped"] if digested else ["cut", "empty"])
    if how == "flipped" and content:
        place = draw.randrange(len(content))
        flipped = content[place] ^ 1 << draw.randrange(8)
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
    elif how == "cut" and content:
        path.write_bytes(content[: draw.randrange(len(content))])
    else:
        path.write_bytes(b"")
    return how


# Ray


class Machines:
    """A Ray cluster of this machine, of which one node after the other is lost.

    Args:
        folder: For Ray's own files.
        environment: Of all that it starts.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        try:
            from ray.cluster_utils import Cluster
        except ImportError as error:
            raise Skipped("needs ray") from error
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            self._cluster = Cluster(
                initialize_head=True,
                head_node_args={"num_cpus": 0, "include_dashboard": False},
            )
            self._nodes = [self._add(), self._add()]
        finally:
            os.environ.clear()
            os.environ.update(before)
        self.address: str = self._cluster.address
        self._environment = environment

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)

    def lose(self, place: int) -> int:
        """A node with all its processes is gone at once; returns how many these were."""
        node = self._nodes.pop(place)
        living = [
            Process(each.process.pid, "") for each in node.all_processes["raylet"]
        ]  # fmt: skip
        children = [child for each in living for child in descendants(each.pid)]
        self._cluster.remove_node(node, allow_graceful=False)
        for child in children:
            child.send(signal.SIGKILL)
        return len(children)

    def actors(self) -> list[Process]:
        """The processes that run actors of the audit."""
        found = []
        for node in self._nodes:
            for each in node.all_processes["raylet"]:
                found += descendants(each.process.pid)
        return [process for process in found if _is_actor(process)]

    def restore(self) -> None:
        """As many nodes as in the beginning."""
        before = dict(os.environ)
        os.environ.update(self._environment)
        try:
            while len(self._nodes) < 2:
                self._nodes.append(self._add())
        finally:
            os.environ.clear()
            os.environ.update(before)

    def close(self) -> None:
        self._cluster.shutdown()


def _is_actor(process: Process) -> bool:
    return process.title.startswith("ray::") and "Actor" in process.title


def _machines(scene: Scene) -> Machines:
    bench = scene.bench
    found: Machines | None = getattr(bench, "machines", None)
    if found is None:
        found = Machines(bench.scratch, bench.environment())
        bench.machines = found  # type: ignore[attr-defined]
        bench.shared.callback(found.close)
    scene.environment["RAY_ADDRESS"] = found.address
    return found


def ray_actor(scene: Scene) -> None:
    """SIGKILL of an actor."""
    machines = _machines(scene)
    scene.commands = [scene.command(*RAY)]
    running = scene.start(scene.commands[0])
    if running.until(scene.while_computing()):
        for process in machines.actors()[:1]:
            process.send(signal.SIGKILL)
            scene.made()
    scene.end(running, 0, 1)


def ray_node(scene: Scene) -> None:
    """One of two nodes is lost with all that ran on it."""
    machines = _machines(scene)
    scene.commands = [scene.command(*RAY)]
    running = scene.start(scene.commands[0])
    if running.until(scene.while_computing()):
        scene.say(f"{machines.lose(scene.draw.randrange(2))} processes lost")
        scene.made()
    scene.end(running, 0, 1)
    machines.restore()


def ray_nodes(scene: Scene) -> None:
    """Both nodes are lost one after the other, and others join."""
    machines = _machines(scene)
    scene.commands = [scene.command(*RAY)]
    running = scene.start(scene.commands[0])
    if running.until(scene.after_parts(scene.draw.randint(1, 3))):
        machines.lose(0)
        machines.lose(0)
        scene.made(2)
        machines.restore()
    scene.end(running, 0, 1)


def ray_driver(scene: Scene) -> None:
    """SIGKILL of a command that started Ray itself; all of Ray must go too."""
    # Whatever clusters there are on this machine.
    scene.environment["RAY_ADDRESS"] = "local"
    seconds = scene.bench.measure(*RAY, RAY_ADDRESS="local")
    scene.commands = [scene.command(*RAY)]
    running = scene.start(scene.commands[0])
    reached = scene.any_moment(running, seconds)
    _kill(scene, running, reached, seconds=_SECONDS_OF_RAY)


def ray_driver_of_cluster(scene: Scene) -> None:
    """SIGKILL of a command that joined a cluster; its actors must go too."""
    machines = _machines(scene)
    scene.commands = [scene.command(*RAY)]
    running = scene.start(scene.commands[0])
    if running.until(scene.while_computing()):
        actors = machines.actors()
        running.send(signal.SIGKILL)
        scene.made()
        scene.say(f"{len(actors)} actors")
        scene.expect(all_gone(actors, _SECONDS_OF_RAY), "its actors went on without it")
    scene.end(running)


def ray_sigterm(scene: Scene) -> None:
    """SIGTERM to a command that computes on Ray."""
    _machines(scene)
    _stop(scene, RAY, signal.SIGTERM, group=False)


# How often each is drawn, compared with the others.
KINDS: dict[str, tuple[Callable[[Scene], None], int]] = {
    "driver": (driver, 4),
    "driver twice": (driver_twice, 2),
    "decoding process": (decoders, 2),
    "another machine": (other_host, 2),
    "worker": (worker, 4),
    "two workers": (workers_twice, 2),
    "driver of workers": (driver_of_processes, 4),
    "all processes": (group, 3),
    "rank": (rank, 3),
    "merge": (merging, 3),
    "two full runs": (two_full, 2),
    "two equal ranks": (two_alike, 2),
    "early merge": (early_merge, 2),
    "zombie": (zombie, 3),
    "SIGTERM": (sigterm, 4),
    "SIGTERM, workers": (sigterm_processes, 3),
    "SIGINT": (sigint, 2),
    "disk full": (disk_full, 4),
    "clock step": (clock, 3),
    "damaged files": (damage, 5),
    "Ray actor": (ray_actor, 3),
    "Ray node": (ray_node, 3),
    "Ray nodes": (ray_nodes, 2),
    "Ray driver": (ray_driver, 3),
    "Ray driver of a cluster": (ray_driver_of_cluster, 2),
    "Ray, SIGTERM": (ray_sigterm, 2),
}
