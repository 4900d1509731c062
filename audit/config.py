"""What an audit is asked to do: frozen, validated, from a job file and flags."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from audit.errors import ConfigError
from audit.validating import expected_of

Triple = tuple[float, float, float]
Auto = Literal["auto"]
Side = Annotated[int, Field(ge=8, le=4096)]
Method = Literal[
    "hirescam", "gradcam", "cam", "gradcam++", "xgradcam", "layercam", "eigencam", "scorecam",
    "ablationcam", "channels",
]  # fmt: skip
Precision = Literal["float32", "tf32", "bf16", "fp16"]
Language = Literal["en", "zh"]
Colours = Literal["jet", "viridis", "cividis", "inferno"]

# The table of a job file that audit.gate reads.
GATE = "gate"
MASKS = ("auto", "dataset", "estimated", "component", "ellipse")
_SESSION = re.compile(r"rembg:[a-z0-9][a-z0-9_.-]*")
# Also with one slash only, as paths make them.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_WHOLE_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^/]")
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class AuditConfig(BaseModel):
    """Settings of one audit.

    Attributes:
        dataset: ``demo``, ``cifar10``, ``cifar100``, ``oxford-iiit-pet``, ``voc``, ``coco``,
            ``folder:PATH``, ``parquet:GLOB``, ``manifest:FILE``, ``webdataset:PATTERN`` or
            ``module:function``.
        split: Which split of it.
        data_root: Where datasets with a name lie.
        samples: For ``voc`` and ``coco``: whole ``images``, or one sample for each of the object
            ``instances``, cut out with some context.
        mask_root: For folders, a parallel tree of object masks.
        mask_object: Values in mask files that mean object; empty for all but 0.
        mask_unknown: Values that mean neither object nor background.
        boxes: File or folder of boxes round the objects, where there are no masks.
        download: Allow a download where data or pretrained weights are absent.
        model: ``cnn``, ``cnn-se``, ``resnet20``, a name of torchvision or timm,
            ``module:function``, or a ``torch.export`` or TorchScript file; ``None`` takes what the
            checkpoint says, else ``cnn``.
        checkpoint: Weights; ``None`` takes those shipped with the audit or with the library.
        checkpoint_key: Which entry of the checkpoint holds them; ``None`` finds it.
        class_map: File that says which outputs of the model make up each class.
        class_map_by: How: their ``max``, or the ``sum`` or ``mean`` of their probabilities.
        preprocessing: ``imagenet`` for its usual size, crop and normalisation; ``None`` takes
            the model's own word.
        image_size: Height and width of what the model sees, overriding it.
        resize: Short side before the crop, likewise.
        interpolation: Of the resize, likewise.
        mean: Of the normalisation, for values in [0, 1], likewise.
        std: Likewise.
        target_layer: Names of layers; empty finds one. Maps of several are averaged.
        method: How maps are made; the first is the main one, the others have columns of their own.
        smooth: Average maps over changed copies: ``none``, ``flip`` or ``flip+intensity``.
        faithfulness: Score how faithful each map is to the model.
        sanity: Check that maps change when the model's weights are drawn anew.
        target: The class that maps explain: ``predicted`` or ``label``.
        masks: ``auto`` (the dataset's, else estimated), ``dataset``, ``estimated``,
            ``component`` (the estimate's part in the centre), ``ellipse`` or ``rembg:SESSION``.
            The first is what scores rest on; each other one has columns of its own.
        channels: How many of the most active channels' maps to keep a sample.
        partners: Transplants a sample, in feature space.
        edits: How many samples to look at in pixels too: ``auto``, ``all``, ``none`` or a number.
        max_bad: The share of unreadable or mislabelled samples past which the run fails.
        limit: Audit this many samples, evenly spaced over the split.
        seed: Draws donors of transplants, bootstrap resamples and random tiles.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        read_timeout: Seconds to wait for an object of a store, each time it is asked for.
        read_tries: How often it is asked for, where the store or the network is at fault.
        precision: With how many digits the network's features are computed: ``float32``, ``tf32``,
            ``bf16``, ``fp16``, or ``auto``: bf16 where the device gains from it. All else is
            float32.
        compile: Whether the network's features are computed by compiled code: ``never``,
            ``always``, or ``auto``: in runs so long that it pays.
        batch_size: Samples a step.
        workers: Processes that decode images.
        shard_size: Samples a part; ``auto`` is 1,000, and more for splits over 2 million.
        out: Where reports go: a folder, or the address of one in an object store.
        cache: Where estimated masks and indices are kept; ``None`` is ``.cache`` in ``out``, or
            ``~/.cache/audit`` where that is an object store.
        run: What the run's folder is called; ``None`` takes a digest of all that decides the rows.
            Processes that share a run under a name are refused where they differ.
        engine: ``local`` or ``ray``.
        processes: Processes that compute; ``None`` is one, or one for each GPU of this machine,
            or with ray as many as the cluster has room for.
        grace: Seconds in which a shard may still be finished after a signal to stop.
        log_json: Tell progress as lines of JSON.
        metrics: A file to keep metrics in, in Prometheus' text format.
        lang: Language of the page and the pictures: ``en`` or ``zh``.
        colours: Of heatmaps in the report: ``jet``, or ``viridis``, ``cividis`` or ``inferno``,
            which colour-blind readers can tell apart too.
        grids: Draw contact sheets and figures as PNG beside the page, which does without.
        profile: Leave in the run's folder where the time went: ``profile/``.

    Example:
        >>> AuditConfig(dataset="demo").method
        ('hirescam',)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    dataset: str = "demo"
    split: str = "test"
    data_root: Path = Path("data")
    samples: Literal["images", "instances"] = "images"
    mask_root: Path | None = None
    mask_object: tuple[int, ...] = ()
    mask_unknown: tuple[int, ...] = ()
    boxes: Path | None = None
    download: bool = False
    model: str | None = None
    checkpoint: Path | None = None
    checkpoint_key: str | None = None
    class_map: Path | None = None
    class_map_by: Literal["max", "sum", "mean"] = "max"
    preprocessing: Literal["imagenet"] | None = None
    image_size: tuple[Side, Side] | None = None
    resize: Side | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    mean: Triple | None = None
    std: Triple | None = None
    target_layer: tuple[str, ...] = ()
    method: tuple[Method, ...] = Field(default=("hirescam",), min_length=1)
    smooth: Literal["none", "flip", "flip+intensity"] = "none"
    faithfulness: bool = False
    sanity: bool = False
    target: Literal["predicted", "label"] = "predicted"
    masks: tuple[str, ...] = Field(default=("auto",), min_length=1)
    channels: int = Field(default=3, ge=1, le=64)
    partners: int = Field(default=4, ge=1, le=64)
    edits: Literal["auto", "all", "none"] | int = "auto"
    max_bad: float = Field(default=0.05, ge=0, le=1)
    limit: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    device: str = "auto"
    read_timeout: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    read_tries: int = Field(default=4, ge=1, le=100)
    precision: Literal[Precision, Auto] = "float32"
    compile: Literal["auto", "never", "always"] = "auto"
    batch_size: Auto | int = "auto"
    workers: Auto | int = "auto"
    shard_size: Auto | Annotated[int, Field(ge=1)] = "auto"
    out: Path | str = Path("reports")
    cache: Path | None = None
    run: str | None = None
    engine: Literal["local", "ray"] = "local"
    processes: int | None = Field(default=None, ge=1, le=1024)
    grace: float = Field(default=20.0, ge=0, allow_inf_nan=False)
    log_json: bool = False
    metrics: Path | None = None
    lang: Language = "en"
    colours: Colours = "jet"
    grids: bool = True
    profile: bool = False

    @field_validator("image_size", mode="before")
    @classmethod
    def _read_size(cls, value: Any) -> Any:
        if isinstance(value, str):
            sides = value.lower().replace("×", "x").split("x")
            if not all(side.strip().isdecimal() for side in sides):
                raise ValueError("pixels such as 224, or height and width such as 192x256")
            value = [int(side) for side in sides]
            value = value * 2 if len(value) == 1 else value
        return (value, value) if isinstance(value, int) else value

    @field_validator("method", "target_layer", "masks", mode="before")
    @classmethod
    def _read_list(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @field_validator("mask_object", "mask_unknown", mode="before")
    @classmethod
    def _read_values(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return [value] if isinstance(value, int) else value
        values = [part.strip() for part in value.split(",")]
        if not all(part.isdecimal() for part in values):
            raise ValueError("whole numbers with commas, such as 1 or 1,2")
        return [int(part) for part in values]

    @field_validator("mask_unknown")
    @classmethod
    def _check_values(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        both = sorted(set(value) & set(info.data.get("mask_object", ())))
        if both:
            raise ValueError(f"other values than mask_object, which has {both[0]} too")
        return value

    @field_validator("masks")
    @classmethod
    def _check_masks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(name in MASKS or _SESSION.fullmatch(name) for name in value):
            raise ValueError(" | ".join((*MASKS, "rembg:SESSION")) + ", several with commas")
        if len({name.partition(":")[0] for name in value}) < len(value):
            raise ValueError("each source of masks once")
        if "auto" in value[1:]:
            raise ValueError("auto first, for it chooses what the scores rest on")
        return value

    @field_validator("method")
    @classmethod
    def _check_methods(cls, value: tuple[Method, ...]) -> tuple[Method, ...]:
        if len(set(value)) < len(value):
            raise ValueError("each method once")
        return value

    @field_validator("mean", "std")
    @classmethod
    def _check_finite(cls, value: Triple | None) -> Triple | None:
        if value is not None and not all(map(math.isfinite, value)):
            raise ValueError("three finite numbers")
        return value

    @field_validator("std")
    @classmethod
    def _check_positive(cls, value: Triple | None) -> Triple | None:
        if value is not None and min(value) <= 0:
            raise ValueError("three numbers above 0")
        return value

    @field_validator("batch_size")
    @classmethod
    def _check_batch_size(cls, value: Auto | int) -> Auto | int:
        if isinstance(value, int) and value < 1:
            raise ValueError("auto, or a whole number of at least 1")
        return value

    @field_validator("out", mode="before")
    @classmethod
    def _read_place(cls, value: Any) -> Any:
        text = str(value)
        if text.startswith("file://"):
            return Path(unquote(urlsplit(text).path))
        if _ADDRESS.match(text) and not _WHOLE_ADDRESS.match(text):
            raise ValueError("a folder, or an address such as s3://BUCKET/FOLDER")
        # A path would lose one of the slashes of an address.
        return text if "://" in text else Path(value)

    @field_validator("cache", "metrics", mode="before")
    @classmethod
    def _check_local(cls, value: Any) -> Any:
        if value is not None and _ADDRESS.match(str(value)):
            raise ValueError("a path on this machine")
        return value

    @field_validator("shard_size", mode="before")
    @classmethod
    def _check_shard_size(cls, value: Any) -> Any:
        if value != "auto" and (not isinstance(value, int) or value < 1):
            raise ValueError("auto, or a whole number of at least 1")
        return value

    @field_validator("run")
    @classmethod
    def _check_run(cls, value: str | None) -> str | None:
        if value is not None and not _RUN.fullmatch(value):
            raise ValueError("up to 100 letters, digits, '.', '_' and '-', not one of these first")
        return value

    @field_validator("edits")
    @classmethod
    def _check_edits(cls, value: str | int) -> str | int:
        if isinstance(value, int) and value < 1:
            raise ValueError("auto, all, none, or a whole number of at least 1")
        return value

    @field_validator("workers")
    @classmethod
    def _check_workers(cls, value: Auto | int) -> Auto | int:
        if isinstance(value, int) and value < 0:
            raise ValueError("auto, or a whole number of at least 0")
        return value


# Settings that cannot change a row, or whose outcome (preprocessing, layer, classes) is part of a
# run's identity itself.
NOT_IN_FINGERPRINT = frozenset(
    {
        "data_root", "mask_root", "boxes", "checkpoint", "class_map", "preprocessing",
        "image_size", "resize", "interpolation", "mean", "std", "target_layer", "download",
        "workers", "out", "max_bad", "device", "sanity", "edits", "lang",
        "colours", "grids", "profile", "cache", "run", "engine", "processes", "grace", "log_json",
        "metrics", "read_timeout", "read_tries",
    }
)  # fmt: skip


def load_config(file: Path | None, overrides: Mapping[str, Any]) -> AuditConfig:
    """Read a job file and let flags override it.

    Args:
        file: TOML with the names of :class:`AuditConfig`, or ``None``.
        overrides: Values by name; ``None`` leaves what the file or the default says.

    Returns:
        The settings.

    Raises:
        ConfigError: If the file cannot be read, or a name or a value is not allowed.
    """
    settings = file_settings(file)
    settings |= {name: value for name, value in overrides.items() if value is not None}
    where = f" in {file}" if file is not None else ""
    unknown = [name for name in settings if name not in AuditConfig.model_fields]
    if unknown:
        # A table of rules stands beside the settings in a job file.
        known = [*AuditConfig.model_fields, *([] if file is None else [GATE])]
        near = difflib.get_close_matches(unknown[0], known, n=1)
        raise ConfigError(
            f"unknown setting '{unknown[0]}'{where}",
            expected="one of " + ", ".join(known),
            remedy=f"did you mean '{near[0]}'?" if near else None,
        )
    try:
        return AuditConfig(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise ConfigError(
            f"the setting '{name}' (--{name.replace('_', '-')}){where} is not valid",
            expected=expected_of(error),
            found=repr(settings[name]),
        ) from error


def file_settings(file: Path | None) -> dict[str, Any]:
    """The settings that a job file gives; none without a file.

    Raises:
        ConfigError: If it is absent or no TOML.
    """
    settings = read_toml(file) if file is not None else {}
    # Read by audit.gate.
    settings.pop(GATE, None)
    return settings


def read_toml(file: Path) -> dict[str, Any]:
    """What a job file says.

    Raises:
        ConfigError: If it is absent or no TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"the job file {file} does not exist") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the job file {file} is not valid TOML", found=str(error)) from error
