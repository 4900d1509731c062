"""The ``audit`` command."""

from __future__ import annotations

import contextlib
import gc
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import audit
from audit.errors import AuditError, visible
from audit.stopping import Stopped, ended_by_terminate
from audit.telemetry import json_lines, tell_exit

if TYPE_CHECKING:
    from audit.config import AuditConfig
    from audit.gate import GateSettings
    from audit.tables import AuditRun

_FILE = click.Path(path_type=Path)
_INTERRUPTED = 130
_TERMINATED = 128 + signal.SIGTERM
_GATE_FAILED = 3
_OBJECTS_BEFORE_A_LOOK = 100_000
# The file that GitHub Actions shows as a step's summary.
_STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


def _model_options(
    model: str = "the checkpoint's, else cnn", weights: str = "shipped, or pretrained"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What names a network and its images; the same for every command that opens one.

    Args:
        model: Which network is taken where none is named.
        weights: Which weights, likewise.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(_options_of_models(model, weights)):
            command = option(command)
        return command

    return add


def _options_of_models(
    model: str, weights: str
) -> Sequence[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    return (
        click.option(
            "--model",
            help="cnn | cnn-se | resnet20 | a torchvision or timm name | module:function | a .pt2 "
            f"or TorchScript file  [default: {model}]",
        ),
        click.option("--checkpoint", type=_FILE, help=f"Weights.  [default: {weights}]"),
        click.option("--checkpoint-key", help="Entry of the checkpoint to take.  [default: found]"),
        click.option("--preprocessing", help="imagenet  [default: the model's own word]"),
        click.option("--image-size", help="What the model sees: N or HxW."),
        click.option("--resize", type=int, help="Short side before the crop."),
        click.option("--interpolation", help="nearest | bilinear | bicubic"),
        click.option("--mean", type=float, nargs=3, help="Normalisation, for values in [0, 1]."),
        click.option("--std", type=float, nargs=3, help="Likewise."),
    )


def _data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What names a split and its object masks; the same for every command that opens one."""
    options = (
        click.option(
            "--dataset",
            help="demo | cifar10 | cifar100 | oxford-iiit-pet | voc | coco | folder:PATH | "
            "parquet:GLOB | manifest:FILE | webdataset:PATTERN | module:function  "
            "[default: demo]",
        ),
        click.option("--split", help="Which split.  [default: test]"),
        click.option("--data-root", type=_FILE, help="Where named datasets lie.  [default: data]"),
        click.option("--samples", help="voc, coco: images | instances, cut out  [default: images]"),
        click.option("--mask-root", type=_FILE, help="Folders: a parallel tree of object masks."),
        click.option("--mask-object", help="N[,N…]: values in mask files that mean object."),
        click.option("--mask-unknown", help="N[,N…]: values that mean neither."),
        click.option("--boxes", type=_FILE, help="Boxes instead: CSV, COCO JSON, VOC XML folder."),
        click.option(
            "--download", is_flag=True, default=None, help="Allow a download of absent data."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


class _WordOrInt(click.ParamType):  # type: ignore[type-arg]  # generic in new releases only
    """A whole number, or one of some words."""

    def __init__(self, *words: str) -> None:
        self._words = words
        self.name = "|".join((*words, "N"))

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        if value in self._words:
            return str(value)
        try:
            return int(value)
        except ValueError:
            words = ", ".join(self._words)
            self.fail(f"'{value}' is neither {words} nor a whole number", param, ctx)


class _Place(click.ParamType):  # type: ignore[type-arg]  # generic in new releases only
    """A folder, or an address, which a path would lose a slash of."""

    name = "place"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | str:
        return str(value) if "://" in str(value) else Path(value)


_AUTO_INT = _WordOrInt("auto")
_PLACE = _Place()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(audit.__version__, prog_name="audit")
def cli() -> None:
    """Does your image classifier look at the object or at the background?"""


def _audit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What an audit is asked to do; the same for those who compute it and those who conclude it."""
    options = (
        click.option("--config", type=_FILE, help="Job file (TOML); flags override it."),
        _data_options,
        _model_options(),
        click.option("--class-map", type=_FILE,
                     help="Which outputs make up each class (TOML, JSON, CSV)."),
        click.option("--class-map-by", help="max | sum | mean of the outputs.  [default: max]"),
        click.option("--target-layer", help="NAME[,NAME…]  [default: found; see audit layers]"),
        click.option("--method", help="hirescam | gradcam | cam | gradcam++ | xgradcam | layercam "
                     "| eigencam | scorecam | ablationcam | channels; several with commas  "
                     "[default: hirescam]"),
        click.option("--smooth", help="none | flip | flip+intensity  [default: none]"),
        click.option("--faithfulness", is_flag=True, default=None,
                     help="Score each map's faithfulness."),
        click.option("--sanity", is_flag=True, default=None,
                     help="Check maps against random weights."),
        click.option("--target", help="Class to explain: predicted | label  [default: predicted]"),
        click.option("--masks", help="auto | dataset | estimated | component | ellipse | "
                     "rembg:SESSION; several with commas  [default: auto]"),
        click.option("--channels", type=int, help="Most active channels to keep.  [default: 3]"),
        click.option("--partners", type=int, help="Transplants a sample.  [default: 4]"),
        click.option("--edits", type=_WordOrInt("auto", "all", "none"),
                     help="Samples to look at in pixels too.  [default: auto]"),
        click.option("--max-bad", type=float,
                     help="Share of bad samples to accept.  [default: 0.05]"),
        click.option("--limit", type=int, help="Audit this many samples, evenly spaced."),
        click.option("--seed", type=int, help="[default: 0]"),
        click.option("--device", help="auto | cpu | cuda | …  [default: auto]"),
        click.option("--precision", help="Of the network's features: float32 | tf32 | bf16 | fp16 "
                     "| auto  [default: float32]"),
        click.option("--compile", help="The network: auto, where that pays | never | always  "
                     "[default: auto]"),
        click.option("--batch-size", type=_AUTO_INT, help="[default: auto]"),
        click.option("--workers", type=_AUTO_INT, help="Decoding processes.  [default: auto]"),
        click.option("--read-timeout", type=float, metavar="SECONDS",
                     help="For an object of a store, each try.  [default: 30]"),
        click.option("--read-tries", type=int, help="How often it is asked for.  [default: 4]"),
        click.option("--shard-size", type=_AUTO_INT,
                     help="Samples a part.  [default: auto, 1000 for up to 2 million]"),
        click.option("--out", help="Where reports go: a folder, or s3://… or gs://…  "
                     "[default: reports]"),
        click.option("--cache", type=_FILE, help="Where estimated masks are kept.  "
                     "[default: .cache in OUT, or ~/.cache/audit]"),
        click.option("--run", metavar="NAME", help="What the run's folder is called.  "
                     "[default: a digest of its settings]"),
        click.option("--lang", help="Of the report: en | zh  [default: en]"),
        click.option("--colours", help="Of heatmaps: jet | viridis | cividis | inferno  "
                     "[default: jet]"),
        click.option("--grids/--no-grids", default=None,
                     help="Contact sheets as PNG.  [default: yes]"),
        click.option("--log-json", is_flag=True, default=None,
                     help="Tell progress as lines of JSON."),
        click.option("--metrics", type=_FILE, metavar="FILE",
                     help="Keep metrics there, as Prometheus reads them."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _say(text: str) -> None:
    click.echo(text, err=True)


def _begin(settings: AuditConfig, what: str) -> None:
    """Say what begins; from here on as lines of JSON, where they are wished for."""
    if settings.log_json:
        click.get_current_context().obj.enter_context(json_lines())
    else:
        _say(f"audit {audit.__version__}: {settings.dataset}, {what} …")


@cli.command()
@_audit_options
@click.option("--engine", help="Where to compute: local | ray  [default: local]")
@click.option("--processes", type=int, metavar="N",
              help="Processes that compute.  [default: one, or one for each GPU]")  # fmt: skip
@click.option("--shard", "piece", metavar="I/N", help="Compute this piece of the run only, from "
              "0/N; auto, auto/N under Slurm and Kubernetes. audit merge ends a run.")  # fmt: skip
@click.option("--grace", type=float, metavar="SECONDS", help="For how long a part may still be "
              "finished after SIGTERM.  [default: 20]")  # fmt: skip
@click.option("--profile", is_flag=True, default=None,
              help="Leave where the time went, in profile/ of the run.")  # fmt: skip
def run(config: Path | None, piece: str | None, **flags: Any) -> int:
    """Audit a classifier over a whole split.

    With a [gate] in the job file the exit code is 3 where the run breaks one of its rules. After
    SIGTERM it is 143: finished parts are kept, and the same command goes on from there.
    """
    from audit.config import load_config

    # Imports leave no garbage; looking for it again and again takes a fifth of their time.
    gc.set_threshold(_OBJECTS_BEFORE_A_LOOK)
    settings = load_config(config, flags)
    # Before hours of work: is the gate right, and is its baseline there?
    gate_settings, baseline = _open_gate(config)
    if settings.engine == "ray":
        from audit.engines.cluster import require_cluster

        require_cluster(os.environ.get("RAY_ADDRESS"))
    if piece is not None:
        return _run_piece(settings, piece, None if gate_settings is None else config)
    _begin(settings, "opening")
    from audit.job import run_audit
    from audit.stopping import on_terminate

    started = time.monotonic()
    with on_terminate(settings.grace) as stopping:
        finished: AuditRun = run_audit(settings, say=_say, stopping=stopping)
    from audit.report.summary import summarise

    click.echo(summarise(finished, seconds=time.monotonic() - started))
    _tell_address(_address_of(finished))
    if gate_settings is None:
        return 0
    return _judge(finished, gate_settings, baseline, address=_address_of(finished))


def _tell_address(address: str | None) -> None:
    """Name the place of a run that lives in an object store; its folder is a copy."""
    if address is not None:
        click.echo(f"Run: {address}")


def _address_of(run: AuditRun) -> str | None:
    """The place of a run that lives in an object store; ``None`` for others."""
    out, facts = str(run.manifest["config"]["out"]), run.manifest
    if "://" not in out:
        return None
    return f"{out.rstrip('/')}/{facts['dataset']}/{facts['model']}/{facts['run_id']}"


def _run_piece(settings: AuditConfig, given: str, gated: Path | None) -> int:
    """Compute one piece of a run, whose job file may have a gate."""
    from audit.engines.pieces import read_piece

    piece = read_piece(given, os.environ)
    _begin(settings, f"piece {piece}, opening")
    from audit.job import run_piece
    from audit.stopping import on_terminate

    with on_terminate(settings.grace) as stopping:
        done = run_piece(piece, settings, say=_say, stopping=stopping)
    parts = f"{done.shards} part{'' if done.shards == 1 else 's'}"
    with_gate = "" if gated is None else f" --config {shlex.quote(str(gated))}"
    click.echo(
        f"piece {piece}: {parts}, of which {done.computed} computed now ({done.samples:,} images)\n"
        f"when all pieces are done: audit merge {shlex.quote(done.place)}{with_gate}"
    )
    return 0


@cli.command()
@click.argument("place", required=False, metavar="[RUN]")
@_audit_options
@click.option("--allow-missing", is_flag=True, help="Go without the parts that are missing; the "
              "manifest and the page say which.")  # fmt: skip
def merge(place: str | None, config: Path | None, allow_missing: bool, **flags: Any) -> int:
    """Verify the parts of a run, and make its tables and its page of them.

    RUN is its folder or address, or a folder with one run at any depth. Without it the settings
    name the run, as in audit run. Beside it only settings are of use that say how to conclude, such
    as --device or --data-root.

    With a [gate] in the job file (--config) the exit code is 3 where the run breaks one of its
    rules; RUN alone knows of no gate.
    """
    from audit.config import file_settings, load_config

    gate_settings, baseline = _open_gate(config)
    from audit.job import merge_run
    from audit.report.summary import summarise
    from audit.stopping import on_terminate

    started = time.monotonic()
    settings = load_config(config, flags)
    if settings.log_json:
        click.get_current_context().obj.enter_context(json_lines())
    if place is not None and (flags["run"] or flags["out"]):
        raise click.UsageError("RUN says which run is meant: leave --run and --out")
    given = {name: value for name, value in flags.items() if value is not None}
    asked: dict[str, Any] = {"config": settings} if place is None else file_settings(config) | given
    with on_terminate(settings.grace) as stopping:
        finished: AuditRun = merge_run(
            place, allow_missing=allow_missing, say=_say, stopping=stopping, **asked
        )
    click.echo(summarise(finished, seconds=time.monotonic() - started))
    where = place if place is not None and "://" in place else _address_of(finished)
    _tell_address(where)
    if gate_settings is None:
        return 0
    return _judge(finished, gate_settings, baseline, address=where)


@cli.command()
@click.argument("place", metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="Tell it as JSON.")
def status(place: str, as_json: bool) -> None:
    """Tell how far a run is: which parts are done, missing or being computed, and by whom.

    RUN is its folder or address, finished or not.
    """
    from audit import status as of_run

    found = of_run.run_status(place)
    click.echo(of_run.as_json(found) if as_json else of_run.describe_status(found))


@cli.command()
@click.option("--dataset", default="demo", show_default=True)
@click.option(
    "--data-root",
    "data_roots",
    type=_FILE,
    multiple=True,
    default=[Path("data")],
    show_default=True,
    help="Repeat it to train on several copies of the dataset together.",
)
@click.option("--model", default="cnn", show_default=True, help="cnn | cnn-se | resnet20")
@click.option("--epochs", default=50, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--lr", default=1e-3, show_default=True, help="Adam's; the peak under onecycle.")
@click.option(
    "--schedule", type=click.Choice(["plateau", "onecycle"]), default="plateau", show_default=True
)
@click.option("--hold-out", default=1000, show_default=True, help="Images of each root.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
)
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto | cpu | cuda | …")
@click.option("--out", type=_FILE, help="[default: runs/DATASET-MODEL]")
def train(out: Path | None, device: str, **settings: Any) -> None:
    """Train a classifier; run it again after an interruption and it goes on."""
    from pydantic import ValidationError

    from audit.devices import pick_device
    from audit.errors import ConfigError
    from audit.training import Recipe
    from audit.training import train as train_model
    from audit.validating import expected_of

    try:
        recipe = Recipe(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"--{str(first['loc'][0]).replace('_', '-')} is not valid",
            expected=expected_of(error),
            found=repr(first["input"]),
        ) from error
    folder = out or Path("runs") / f"{recipe.dataset.replace(':', '-')}-{recipe.model}"
    weights = train_model(recipe, folder, device=pick_device(device))
    click.echo((folder / "README.md").read_text(encoding="utf-8"))
    click.echo(f"weights: {weights}")


@cli.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE…")
@_model_options("the checkpoint's", "pretrained, of torchvision and timm")
@click.option("--classes", help="Names with commas, or a file of them (lines or JSON).  "
              "[default: the model's own]")  # fmt: skip
@click.option("--top", type=click.IntRange(min=1),
              help="Explain so many of the most probable classes.  [default: 1]")  # fmt: skip
@click.option("--class", "targets", multiple=True, metavar="NAME",
              help="Explain this class instead of the most probable, by name or number; may be "
              "repeated.")  # fmt: skip
@click.option("--method", help="hirescam | gradcam | cam | gradcam++ | xgradcam | layercam | "
              "eigencam | scorecam | ablationcam | channels  [default: hirescam]")  # fmt: skip
@click.option("--smooth", help="none | flip | flip+intensity  [default: none]")
@click.option("--target-layer", help="NAME[,NAME…]  [default: found; see audit layers]")
@click.option("--channels", type=click.IntRange(0, 64), default=0,
              help="Draw so many of the most active channels' maps too.")  # fmt: skip
@click.option("--device", help="auto | cpu | cuda | …  [default: auto]")
@click.option("--out", type=_FILE, default=Path(), help="Where heatmaps go.  [default: here]")
@click.option("--download", is_flag=True, default=None, help="Allow a download of absent weights.")
def explain(images: tuple[str, ...], **asked: Any) -> int:
    """Classify pictures and draw a heatmap over each.

    IMAGE is a file, a folder or a glob. <name>_heatmap.jpg is written for each picture, with one
    panel for each explained class; what the network did not see is grey and dark.
    """
    from audit.explain import OK, as_text, each_image, probability_lines

    top = asked.pop("top")
    if top is not None and asked["targets"]:
        raise click.UsageError("--class and --top both say which classes are explained: leave one")
    top = top or 1
    asked["targets"] = asked["targets"] or top
    good = bad = 0
    for one in each_image(images, say=lambda text: click.echo(text, err=True), **asked):
        if one.status != OK:
            bad += 1
            click.echo(f"error: {as_text(one.path)} cannot be explained: {one.reason}", err=True)
            continue
        good += 1
        click.echo(as_text(one.path))
        for line in probability_lines(one, most=max(5, top)):
            click.echo(f"  {line}")
        click.echo(f"  heatmap: {as_text(str(one.heatmap))}")
    if bad:
        click.echo(f"{bad} of {good + bad} pictures could not be explained", err=True)
    return 0 if not bad else 1 if good else 2


@cli.command()
@click.argument("name", required=False, metavar="[MODEL]")
@_model_options("the checkpoint's", "none needed")
@click.option("--all", "everything", is_flag=True, help="Show every activation.")
def layers(name: str | None, model: str | None, everything: bool, **flags: Any) -> None:
    """List the layers of a network that heatmaps may be made of.

    Weights need not be at hand for the networks of audit, torchvision and timm.
    """
    from audit.errors import UsageError

    if name and model and name != model:
        raise UsageError("two networks are named", expected="one", found=f"{name} and {model}")
    from audit.explain import describe_layers

    click.echo(describe_layers(model=name or model, everything=everything, **flags))


@cli.command()
@click.option("--config", type=_FILE, help="Job file (TOML); flags override it.")
@_data_options
@_model_options("the checkpoint's, else none", "shipped, or pretrained")
@click.option("--masks", help="estimated | component | ellipse | rembg:SESSION; several with "
              "commas  [default: estimated]")  # fmt: skip
@click.option("--limit", type=int, help="Take this many samples, evenly spaced.")
@click.option("--device", help="auto | cpu | cuda | …  [default: auto]")
@click.option("--workers", type=_AUTO_INT, help="Decoding processes.  [default: auto]")
@click.option("--out", type=_FILE, help="Where reports, and the cache, go.  [default: reports]")
@click.option("--show", type=_FILE, metavar="FILE.png",
              help="Draw the least and the most trusted masks.")  # fmt: skip
@click.option("--against", metavar="MASKS",
              help="Judge them by true masks: dataset, or a parallel folder.")  # fmt: skip
def masks(config: Path | None, show: Path | None, against: str | None, **flags: Any) -> None:
    """Estimate a split's object masks; runs with the same settings find them in the cache.

    Without --model the images keep the dataset's own size, or are 224×224.
    """
    from audit.config import load_config

    settings = load_config(config, flags)
    click.echo(f"audit {audit.__version__}: {settings.dataset}, opening …", err=True)
    from audit.masking import make_masks

    click.echo(make_masks(settings, show=show, against=against).describe())


@cli.command()
@click.option("--dataset", help="demo | cifar10 | … with a training and a test part  "
              "[default: demo]")  # fmt: skip
@click.option("--data-root", type=_FILE, help="Where named datasets lie.  [default: data]")
@click.option("--model", help="cnn | cnn-se | resnet20  [default: cnn]")
@click.option("--checkpoint", type=_FILE,
              help="Clean weights to begin with.  [default: shipped, else trained]")  # fmt: skip
@click.option("--mean", type=float, nargs=3, help="Their normalisation, for values in [0, 1].")
@click.option("--std", type=float, nargs=3, help="Likewise.")
@click.option("--cues", help="patch | watermark | object_colour | frame | texture | blur; several "
              "with commas  [default: all]")  # fmt: skip
@click.option("--strengths", help="Percents of a class's images that carry its cue.  "
              "[default: 0,20,50,80,95,100]")  # fmt: skip
@click.option("--seeds", type=int, help="How often, each time on other classes.  [default: 1]")
@click.option("--random", type=int, help="Random networks among the checks; 0 leaves the checks.  "
              "[default: 10]")  # fmt: skip
@click.option("--limit", type=int, help="Most test images.  [default: 2000]")
@click.option("--train-limit", type=int, help="Most training images.  [default: 20000]")
@click.option("--base-epochs", type=int, help="Of a base that is trained.  [default: 6]")
@click.option("--epochs", type=int, help="Of each model.  [default: 4]")
@click.option("--lr", type=float, help="Peak learning rate.  [default: 0.002]")
@click.option("--kept", type=float, help="Share of the base in a model's first weights.  "
              "[default: 0.3]")  # fmt: skip
@click.option("--masks", help="As in audit run.  [default: auto]")
@click.option("--device", help="auto | cpu | cuda | …  [default: auto]")
@click.option("--out", type=_FILE, help="Where reports go.  [default: reports]")
def certify(**flags: Any) -> None:
    """Plant shortcuts, train on them, and see whether the audit finds them.

    Run it again after an interruption and it goes on.
    """
    from audit.certify.settings import load_settings

    settings = load_settings(flags)
    click.echo(f"audit {audit.__version__}: {settings.dataset}, opening …", err=True)
    from audit.certify.benchmark import certify as run_benchmark
    from audit.certify.page import describe

    finished = run_benchmark(settings, say=lambda text: click.echo(text, err=True))
    click.echo(describe(finished.path, finished.classes, finished.summary, finished.seconds))


def _open_gate(
    config: Path | None, baseline: Path | None = None
) -> tuple[GateSettings | None, AuditRun | None]:
    """The gate of a job file, and the run that it compares with."""
    if config is None:
        return None, None
    from audit.gate import load_gate, open_baseline

    settings = load_gate(config, baseline)
    if settings is None or settings.baseline is None:
        return settings, None
    return settings, open_baseline(settings.baseline)


def _judge(
    finished: AuditRun,
    settings: GateSettings,
    baseline: AuditRun | None,
    out: Path | None = None,
    *,
    address: str | None = None,
) -> int:
    """Hold a run against a gate, leave the outcome as files (also in its store), print it."""
    from audit.gate import as_markdown, evaluate, outcome_lines, write_results

    evaluation = evaluate(finished, settings, baseline)
    files = write_results(evaluation, out)
    if address is not None and out is None:
        from audit.storage import open_storage
        from audit.storage.mirror import push

        push(finished.path, open_storage(address), [file.name for file in files])
    click.echo("\n" + "\n".join(outcome_lines(evaluation)))
    click.echo(f"Gate: {', '.join(map(str, files))}")
    if summary := os.environ.get(_STEP_SUMMARY):
        from audit.export import append_summary

        try:
            append_summary(Path(summary), as_markdown(evaluation))
        except AuditError as error:
            # The exit code is the gate's.
            click.echo(f"warning: {error}", err=True)
    return 0 if evaluation.passed else _GATE_FAILED


@cli.command()
@click.argument("run", type=_PLACE, metavar="RUN")
@click.option("--config", type=_FILE, required=True, help="Job file (TOML) with a [gate] table.")
@click.option("--baseline", type=_FILE, help="Run to compare with, instead of the gate's.")
@click.option("--out", type=_FILE, help="Where gate.json, gate.md and gate.xml go.  "
              "[default: the run's folder]")  # fmt: skip
def gate(run: Path | str, config: Path, baseline: Path | None, out: Path | None) -> int:
    """Hold a finished run against the [gate] of a job file.

    The exit code is 0 where it keeps every rule, 3 where it breaks one. In GitHub Actions the
    outcome is added to the step's summary.
    """
    from audit.errors import ConfigError
    from audit.tables import load_run

    settings, opened = _open_gate(config, baseline)
    if settings is None:
        raise ConfigError(f"the job file {config} has no gate", expected="a table [gate]",
                          remedy="see jobs/gate.toml")  # fmt: skip
    address = run if isinstance(run, str) else None
    return _judge(load_run(run), settings, opened, out, address=address)


@cli.command()
@click.argument("run", type=_PLACE, metavar="RUN")
@click.option("--to", "target", type=click.Choice(["mlflow", "tensorboard", "github"]),
              required=True, help="Where to.")  # fmt: skip
@click.option("--tracking-uri", help="mlflow: the server, or sqlite:///FILE.  [default: MLflow's]")
@click.option("--experiment", help="mlflow: its name.  [default: audit]")
@click.option("--logdir", type=_FILE, help="tensorboard: where its folders of runs are.")
@click.option("--summary", type=_FILE,
              help="github: file to add to.  [default: $GITHUB_STEP_SUMMARY]")  # fmt: skip
def export(run: Path | str, target: str, **asked: Any) -> None:
    """Hand a finished run to MLflow, TensorBoard or GitHub's step summary.

    A second export of the same run to MLflow or TensorBoard replaces the first.
    """
    from audit.tables import load_run

    _refuse_foreign(target, asked)
    finished = load_run(run)
    if target == "mlflow":
        from audit.export.mlflow import export_to_mlflow

        where = export_to_mlflow(
            finished,
            tracking_uri=asked["tracking_uri"],
            experiment=asked["experiment"] or "audit",
        )
        click.echo(f"MLflow: run {where.run_id} of experiment {where.experiment_id} at {where.uri}")
    elif target == "tensorboard":
        from audit.export.tensorboard import export_to_tensorboard

        if asked["logdir"] is None:
            raise click.UsageError("--to tensorboard needs --logdir")
        folder = export_to_tensorboard(finished, asked["logdir"])
        click.echo(f"TensorBoard: {folder}")
        click.echo(f"look at it with: tensorboard --logdir {asked['logdir']}")
    else:
        from audit.export import append_summary, run_as_markdown

        summary = asked["summary"] or os.environ.get(_STEP_SUMMARY)
        if summary is None:
            raise click.UsageError(f"--to github needs --summary FILE outside of GitHub Actions, "
                                   f"which sets ${_STEP_SUMMARY}")  # fmt: skip
        append_summary(Path(summary), run_as_markdown(finished))
        click.echo(f"added to {summary}")


_EXPORT_FLAGS = {
    "mlflow": ("tracking_uri", "experiment"), "tensorboard": ("logdir",), "github": ("summary",)
}  # fmt: skip


@cli.command()
@click.argument("run", type=_PLACE, metavar="RUN")
@click.option("--out", type=_FILE, help="Where page and grids go.  [default: the run's folder]")
@click.option("--lang", help="en | zh  [default: as before]")
@click.option("--colours", help="jet | viridis | cividis | inferno  [default: as before]")
@click.option("--sample", "chosen", multiple=True, metavar="ID",
              help="Show this sample too; may be repeated.")  # fmt: skip
@click.option("--samples", type=_FILE, metavar="FILE",
              help="Show these too: a sample_id in each line.")  # fmt: skip
@click.option("--gallery", type=click.IntRange(min=0), metavar="N",
              help="Show at most so many flagged images.  [default: all stored ones]")  # fmt: skip
@click.option("--data-root", type=_FILE, help="Where named datasets lie by now, for samples whose "
              "pictures the run does not hold.")  # fmt: skip
def report(run: Path | str, chosen: tuple[str, ...], samples: Path | None, **wishes: Any) -> None:
    """Draw a finished run's page and pictures again, from its tables alone.

    RUN is its folder, or a folder of runs: then the newest. Without options the report becomes what
    it was, drawn by this version of audit.
    """
    names = [*chosen, *(_lines(samples) if samples is not None else ())]
    from audit.redraw import redraw

    click.echo(f"Report: {redraw(run, samples=names or None, **wishes)}")


def _lines(file: Path) -> list[str]:
    """The lines of a text that are not empty."""
    from audit.errors import UsageError

    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the file of samples {file} cannot be read", found=str(error)) from error


def _refuse_foreign(target: str, asked: dict[str, Any]) -> None:
    """Refuse flags of another target."""
    for name, value in asked.items():
        if value is not None and name not in _EXPORT_FLAGS[target]:
            raise click.UsageError(f"--{name.replace('_', '-')} is not for --to {target}")


@cli.command()
@click.argument("a", type=_PLACE, metavar="A")
@click.argument("b", type=_PLACE, metavar="B")
@click.option("--out", type=_FILE, help="Where to.  [default: reports/compare/A's run-B's run]")
@click.option("--lang", default="en", show_default=True, help="Of the page: en | zh")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Draws bootstrap resamples.")  # fmt: skip
def compare(a: Path | str, b: Path | str, out: Path | None, lang: str, seed: int) -> None:
    """Compare two runs over the same images: is B better, and in which classes?

    A and B are folders of runs, or folders that hold some: then the newest.
    """
    from audit.comparing import compare_runs
    from audit.report.comparing.summary import summarise_comparison

    found = compare_runs(a, b, out=out, lang=lang, seed=seed)
    click.echo(summarise_comparison(found.path, found.manifest, found.compare, found.changes))


@cli.command()
@click.argument("folder", type=_FILE, metavar="DIR")
@click.option("--order", default="finished", show_default=True, help="finished | name")
@click.option("--out", type=_FILE, help="Where to.  [default: reports/trend/last run]")
@click.option("--lang", default="en", show_default=True, help="Of the page: en | zh")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Draws bootstrap resamples.")  # fmt: skip
def trend(folder: Path, order: str, out: Path | None, lang: str, seed: int) -> None:
    """Follow a line of models: all runs in DIR, each compared with the one before."""
    from audit.comparing import follow_runs
    from audit.report.comparing.summary import summarise_trend

    found = follow_runs(folder, order=order, out=out, lang=lang, seed=seed)
    click.echo(summarise_trend(found.path, found.manifest, found.trend))


def main() -> None:
    """Run the command; errors that a user can mend end without a traceback."""
    with contextlib.ExitStack() as lasting:
        code, message = _run_command(lasting)
        if not tell_exit(code, message) and message:
            click.echo(message, err=True)
    sys.exit(code)


def _run_command(lasting: contextlib.ExitStack) -> tuple[int, str]:
    """Run the command; returns the exit code and what there is to say.

    Args:
        lasting: Takes what is to last until the command's end was told.
    """
    kept = "finished parts are kept, run the same command again"
    message = ""
    try:
        # From the first moment: the libraries alone take seconds to load.
        with ended_by_terminate() as stopping:
            try:
                code = cli.main(obj=lasting, standalone_mode=False) or 0
            except Exception as error:
                # Libraries that are being loaded take an end for a failure of theirs.
                if stopping.asked and not isinstance(error, AuditError):
                    raise Stopped from error
                raise
    except AuditError as error:
        code, message = error.exit_code, f"error: {error}"
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code, message = _INTERRUPTED, f"interrupted: {kept}"
    except Stopped:
        code, message = _TERMINATED, f"stopped: {kept}"
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        where = visible(str(error.filename or "the system"))
        code, message = 1, f"error: {where}: {error.strerror}"
    return code, message


if __name__ == "__main__":
    main()
