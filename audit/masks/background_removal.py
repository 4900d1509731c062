"""Masks by rembg's networks (an extra): slow, sharp, and only as good as the network named."""

from __future__ import annotations

import difflib
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from audit.errors import AuditError, UsageError
from audit.files import sha256_of
from audit.masks.estimate import MaskEstimate, enlarge
from audit.masks.estimators import DefaultEstimator, code_behind, digest_of

LEAST_SIDE = 128
PLANES = ("removed", "fallback")

_OPAQUE = 128  # of 255
_NOTHING = 0.01  # of the image: rembg stretches each answer to the full range, so specks remain
_OWN_FILE = "your own file's"
_UNKNOWN = "not known here: see its model card"
# What the weights may be used for; the code of rembg is MIT.
LICENCES = {
    "u2net": "Apache-2.0",
    "u2netp": "Apache-2.0",
    "u2net_human_seg": "Apache-2.0",
    "silueta": "Apache-2.0 (made from u2net)",
    "isnet-general-use": "Apache-2.0",
    "isnet-anime": "Apache-2.0",
    "birefnet-general": "MIT",
    "birefnet-general-fp16": "MIT",
    "birefnet-general-lite": "MIT",
    "birefnet-portrait": "MIT",
    "birefnet-dis": "MIT",
    "birefnet-hrsod": "MIT",
    "birefnet-cod": "MIT",
    "birefnet-massive": "MIT",
    "bria-rmbg": "non-commercial (BRIA RMBG 2.0: commercial use needs an agreement with BRIA)",
    "u2net_custom": _OWN_FILE,
    "dis_custom": _OWN_FILE,
    "ben_custom": _OWN_FILE,
}
_RELEASES = "https://github.com/danielgatis/rembg/releases/download/v0.0.0"
_RELEASED_AS = {
    "birefnet-general": "BiRefNet-general-epoch_244.onnx",
    "birefnet-general-lite": "BiRefNet-general-bb_swin_v1_tiny-epoch_232.onnx",
    "birefnet-portrait": "BiRefNet-portrait-epoch_150.onnx",
    "birefnet-dis": "BiRefNet-DIS-epoch_590.onnx",
    "birefnet-hrsod": "BiRefNet-HRSOD_DHU-epoch_115.onnx",
    "birefnet-cod": "BiRefNet-COD-epoch_125.onnx",
    "birefnet-massive": "BiRefNet-massive-TR_DIS5K_TR_TEs-epoch_420.onnx",
    "bria-rmbg": "bria-rmbg-2.0.onnx",
}
_UNFIT = {
    "sam": "it wants a prompt for each image",
    "u2net_cloth_seg": "it finds clothes, not objects",
    "withoutbg": "it sends the images to a service",
    "atlascloud": "it sends the images to a service",
}


class RembgEstimator:
    """One of rembg's networks, with the default estimator where it finds nothing.

    The confidence is the overlap (IoU) with the default estimator's mask: two methods that have
    nothing in common seldom err alike. (How sure the network is of its pixels says little: it is
    as sure of the wrong object.) Where the network's mask covers less than a hundredth of the
    image, or all but that, the default's mask and confidence stand, and ``fallback`` is set.

    Args:
        session: rembg's name of the network.
        image_size: Of the images.
        device: Where to compute.
        download: Allow rembg to download the network's file where it is absent.

    Raises:
        UsageError: If rembg, the session or its file is absent, or cannot be used here.
    """

    planes = len(PLANES)
    batch_size = 16

    def __init__(
        self,
        session: str,
        image_size: tuple[int, int],
        device: torch.device,
        *,
        download: bool = False,
    ) -> None:
        if min(image_size) < LEAST_SIDE:
            raise UsageError(
                f"rembg's networks find nothing in images of {image_size[0]}×{image_size[1]}",
                expected=f"sides of at least {LEAST_SIDE} px",
                remedy="use --masks estimated, which is made for small images",
            )
        self.name = f"rembg-{session}"
        self.size = image_size
        self.session = session
        self.licence = LICENCES.get(session, _UNKNOWN)
        self._kind = _session_kind(session)
        self._file = _find_file(self._kind, session, download)
        self._fallback = DefaultEstimator(device, image_size)
        self._provider = _provider_for(device)

    def fingerprint(self) -> str:
        """See :class:`audit.masks.estimators.Estimator`."""
        libraries = [f"{name} {version(name)}" for name in ("rembg", "pillow")]
        runtime = import_module("onnxruntime").__version__  # of several packages of that name
        return digest_of(
            code_behind("background_removal"),
            self._fallback.fingerprint(),
            self.session,
            self.sha256,
            *libraries,
            runtime,
            self._provider,
        )

    @cached_property
    def sha256(self) -> str:
        """Of the network's file."""
        return sha256_of(self._file)

    def facts(self) -> dict[str, str]:
        """What a reader should know of the masks' origin, for the manifest."""
        return {
            "session": self.session,
            "model": self._file.name,
            "sha256": self.sha256,
            "licence": self.licence,
            "rembg": version("rembg"),
        }

    def __call__(self, images: Tensor) -> MaskEstimate:
        """See :class:`audit.masks.estimators.Estimator`."""
        removed = torch.stack([self._remove(image) for image in images])
        guess = self._fallback(images)
        other = enlarge(guess.planes[:, 0].cpu(), self.size) > 0.5
        area = removed.float().mean(dim=(1, 2))
        failed = (area < _NOTHING) | (area > 1 - _NOTHING)
        mask = torch.where(failed[:, None, None], other, removed)
        agreed = (mask & other).flatten(1).sum(dim=1) / (mask | other).flatten(1).sum(dim=1)
        return MaskEstimate(
            planes=torch.stack([mask, failed[:, None, None].expand_as(mask)], dim=1),
            confidence=torch.where(failed, guess.confidence.cpu(), agreed.nan_to_num(0.0)),
        )

    def _remove(self, image: Tensor) -> Tensor:
        """Where the network sees the object of one image, bool, H×W."""
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        try:
            # An even answer is divided by its range of zero.
            with np.errstate(divide="ignore", invalid="ignore"):
                found = self._network.predict(picture)
        except Exception as error:  # onnxruntime's errors have no common parent
            raise _unusable(self._file, error) from error
        return torch.from_numpy(np.array(found[0].convert("L")) >= _OPAQUE)

    @cached_property
    def _network(self) -> Any:
        """Rembg's session on the file that was found, so that nothing is ever downloaded here."""
        file = str(self._file)
        kind = type(
            self._kind.__name__,
            (self._kind,),
            {"download_models": classmethod(lambda _, *__, **___: file)},
        )
        runtime = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.use_deterministic_compute = True
        try:
            return kind(self.session, options, providers=[self._provider], model_path=file)
        except Exception as error:  # onnxruntime's errors have no common parent
            raise _unusable(self._file, error) from error


def fell_back(estimate: MaskEstimate) -> Tensor:
    """For which of rembg's masks the default estimator's stands, bool N."""
    return estimate.planes[:, PLANES.index("fallback")].flatten(1).all(dim=1)


def _session_kind(session: str) -> Any:
    """Rembg's class for a session.

    Raises:
        UsageError: If rembg is absent, does not know the session, or its masks are of no use.
    """
    absent = [name for name in ("rembg", "onnxruntime") if find_spec(name) is None]
    if absent:
        raise UsageError(
            f"--masks rembg:{session} needs {' and '.join(absent)}",
            remedy="pip install 'audit[rembg]'",
        )
    try:
        kinds = {kind.name(): kind for kind in import_module("rembg.sessions").sessions_class}
    except (ImportError, SystemExit) as error:  # rembg leaves where onnxruntime does not load
        raise UsageError(
            f"--masks rembg:{session} needs rembg, which does not load",
            found=str(error),
            remedy="pip install --force-reinstall 'audit[rembg]'",
        ) from error
    if session in _UNFIT:
        raise UsageError(
            f"rembg's session '{session}' cannot make masks for an audit: {_UNFIT[session]}",
            remedy="take another, such as rembg:isnet-general-use",
        )
    fit = sorted(set(kinds) - set(_UNFIT))
    # Newer ones may send images away too; those that do say so.
    if session not in kinds or not getattr(kinds[session], "is_local", lambda: True)():
        near = difflib.get_close_matches(session, fit, n=1)
        raise UsageError(
            f"rembg has no session '{session}' that computes here",
            expected=", ".join(fit),
            remedy=f"did you mean rembg:{near[0]}?" if near else None,
        )
    return kinds[session]


def _find_file(kind: Any, session: str, download: bool) -> Path:
    """The network's file, where rembg keeps it.

    Raises:
        UsageError: If it is absent and may not, or cannot, be downloaded.
    """
    home = Path(kind.u2net_home())
    homes = [home, Path(getattr(kind, "legacy_home", kind.u2net_home)())]
    name = f"{session}.onnx"
    places = [home / "models" / session / name, *(place / name for place in homes)]
    for place in places:
        if place.is_file():
            return place
    own = LICENCES.get(session) == _OWN_FILE
    if not download or own:
        url = f"{_RELEASES}/{_RELEASED_AS.get(session, name)}"
        licence = LICENCES.get(session, _UNKNOWN)
        source = "your own network, exported to ONNX" if own else f"{url} (licence: {licence})"
        raise UsageError(
            f"the network of rembg:{session} is not on this machine",
            expected=f"the file {name} in {home} (REMBG_HOME or U2NET_HOME name another folder)",
            found=f"no {places[0]} and no {places[1]}",
            remedy=f"put it there: {source}" + ("" if own else "; or allow it with --download"),
        )
    try:
        return Path(kind.download_models())
    except (OSError, ValueError, ImportError) as error:
        raise AuditError(
            f"the network of rembg:{session} cannot be downloaded",
            found=str(error).splitlines()[0][:300],
            remedy=f"fetch it where there is a network, and put {name} into {home}",
        ) from error


def _provider_for(device: torch.device) -> str:
    """Where onnxruntime computes; it has packages of its own for accelerators."""
    runtime = import_module("onnxruntime")
    cuda = "CUDAExecutionProvider"
    if device.type == "cuda" and cuda in runtime.get_available_providers():
        return cuda
    return "CPUExecutionProvider"


def _unusable(file: Path, error: Exception) -> UsageError:
    return UsageError(
        f"{file} cannot be used as rembg's network",
        found=(str(error).splitlines() or [type(error).__name__])[0][:300],
        remedy="remove the file and fetch it again; a network of your own needs the input and "
        "output of the session that you name",
    )
