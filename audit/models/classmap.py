"""Many classes of a network as one class of the data."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from audit.errors import ModelError

Gathering = Literal["max", "sum", "mean"]

_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")


@dataclass(frozen=True)
class ClassMap:
    """Which outputs of a network make up each class of the data, and how.

    Attributes:
        members: For each class of the data the numbers of the network's outputs, at least one.
        by: ``max`` takes the strongest member, as looking up the best output's class does;
            ``sum`` adds their probabilities, which favours classes of many members; ``mean``
            averages them, as if every class of the data were equally common.
    """

    members: tuple[tuple[int, ...], ...]
    by: Gathering = "max"

    def identity(self) -> dict[str, Any]:
        """For the run's fingerprint and manifest."""
        return {"by": self.by, "members": [list(numbers) for numbers in self.members]}


class MappedClasses(nn.Module):
    """A network whose outputs are gathered into the classes of the data.

    Outputs that belong to no class are left out. By ``max`` a class's logit is its strongest
    member's, which keeps a piecewise linear head piecewise linear; by ``sum`` it is the log of the
    sum of their exponentials, so that after the softmax its probability is the sum of theirs; by
    ``mean`` that of the mean.

    Source:
        ``max`` is how Xiao et al. 2020, "Noise or Signal", section 3, read ImageNet networks on
        nine classes.

    Args:
        network: Images to raw logits N×R.
        classmap: Which of them make up each class.

    Example:
        >>> raw = nn.Identity()
        >>> logits = torch.tensor([[0.0, 1.0, 0.5]])
        >>> MappedClasses(raw, ClassMap(((0, 2), (1,))))(logits)
        tensor([[0.5000, 1.0000]])
        >>> MappedClasses(raw, ClassMap(((0, 2), (1,)), by="sum"))(logits)
        tensor([[0.9741, 1.0000]])
    """

    index: Tensor
    padding: Tensor

    def __init__(self, network: nn.Module, classmap: ClassMap) -> None:
        super().__init__()
        self.network = network
        widest = max(map(len, classmap.members))
        self.single = widest == 1
        rows = [[*m, *[m[0]] * (widest - len(m))] for m in classmap.members]
        self.by = classmap.by
        share = [math.log(len(m)) if self.by == "mean" else 0.0 for m in classmap.members]
        blank = [
            [-s] * len(m) + [-math.inf] * (widest - len(m))
            for m, s in zip(classmap.members, share, strict=True)
        ]
        self.register_buffer("index", torch.tensor(rows), persistent=False)
        self.register_buffer("padding", torch.tensor(blank), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits N×K of the data's classes."""
        raw: Tensor = self.network(images)
        if self.single:
            return raw[:, self.index[:, 0]]
        gathered = raw[:, self.index] + self.padding
        return gathered.amax(dim=2) if self.by == "max" else torch.logsumexp(gathered, dim=2)


def read_class_map(
    file: Path,
    classes: Sequence[str],
    outputs: int,
    names: Sequence[str] | None,
    by: Gathering = "max",
) -> ClassMap:
    """Read a class map.

    TOML or JSON: ``class of the data = [members]``; a member is an output's number, a range such
    as ``"281-285"``, or its name where the network knows its names. CSV: two columns,
    ``model_class,dataset_class``.

    Args:
        file: The map.
        classes: The data's class names; each must have members.
        outputs: R, how many outputs the network has.
        names: The outputs' names, if they are known.
        by: See :class:`ClassMap`.

    Raises:
        ModelError: If the file cannot be read, or names an unknown class or output.
    """
    entries = _entries(file)
    unknown = [name for name in entries if name not in classes]
    if unknown:
        raise ModelError(
            f"the class map {file} names a class that the data does not have",
            expected=", ".join(classes[:12]) + (" …" if len(classes) > 12 else ""),
            found=unknown[0],
            remedy="the data's class comes first: class = [outputs of the model]",
        )
    without = [name for name in classes if not entries.get(name)]
    if without:
        raise ModelError(
            f"the class map {file} gives no outputs of the model to '{without[0]}'",
            expected="at least one for every class of the data",
            found=f"{len(without)} classes without: {', '.join(without[:5])}",
            remedy="add them, or leave the images of a class that the model lacks out of the data",
        )
    known = _Names(names or ())
    members = tuple(
        tuple(dict.fromkeys(n for m in entries[name] for n in _numbers(m, known, outputs, file)))
        for name in classes
    )
    _refuse_overlap(members, classes, file)
    return ClassMap(members, by)


def match_names(classes: Sequence[str], names: Sequence[str]) -> ClassMap | None:
    """The outputs that are called as the data's classes, if there is one for each.

    Args:
        classes: The data's.
        names: The network's.

    Example:
        >>> match_names(["dog", "cat"], ["cat", "cow", "Dog, domestic dog"]).members
        ((2,), (0,))
    """
    known = _Names(names)
    found = [known.find(name) for name in classes]
    if len(classes) == len(names) and all(n in numbers for n, numbers in enumerate(found)):
        # In the same order; ImageNet has two cranes, which only their places tell apart.
        return ClassMap(tuple((number,) for number in range(len(names))))
    if any(len(numbers) != 1 for numbers in found):
        return None
    members = tuple((numbers[0],) for numbers in found)
    return ClassMap(members) if len(set(members)) == len(members) else None


class _Names:
    """Outputs by name: as it stands, without regard to case and signs, or by one of several words.

    Args:
        names: Of the outputs; ImageNet's are often several words with commas between.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._tables: tuple[dict[str, list[int]], ...] = ({}, {}, {})
        for number, name in enumerate(names):
            words = {_plain(word) for word in name.split(",")} if "," in name else set()
            for table, keys in zip(self._tables, ({name}, {_plain(name)}, words), strict=True):
                for key in keys:
                    table.setdefault(key, []).append(number)

    def find(self, name: str) -> list[int]:
        """The numbers of the outputs that are called so."""
        exact, plain, words = self._tables
        key = _plain(name)
        return exact.get(name) or plain.get(key) or words.get(key) or []


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().casefold()


def _entries(file: Path) -> dict[str, list[object]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() == ".json":
            content = json.loads(text)
        elif file.suffix.lower() == ".csv":
            content = _from_csv(text, file)
        else:
            content = tomllib.loads(text)
    except FileNotFoundError as error:
        raise ModelError(
            f"the class map {file} does not exist", remedy="check the path after --class-map"
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise ModelError(
            f"the class map {file} cannot be read",
            expected="TOML or JSON of the form: class = [outputs], or CSV with the columns "
            "model_class,dataset_class",
            found=(str(error).splitlines() or ["nothing"])[0],
        ) from error
    if not isinstance(content, Mapping):
        raise ModelError(
            f"the class map {file} holds no classes",
            expected="class = [outputs]",
            found=f"a {type(content).__name__}",
        )
    inner = content.get("classes")
    if not isinstance(inner, Mapping):
        inner = content
    return {
        str(name): list(value) if isinstance(value, list) else [value]
        for name, value in inner.items()
    }


def _from_csv(text: str, file: Path) -> dict[str, list[object]]:
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    wanted = {"model_class", "dataset_class"}
    if not wanted <= set(rows.fieldnames or ()):
        raise ModelError(
            f"the class map {file} lacks a column",
            expected="model_class,dataset_class",
            found=",".join(rows.fieldnames or ()),
        )
    entries: dict[str, list[object]] = {}
    for row in rows:
        pair = row["dataset_class"], row["model_class"]
        if not all(pair):
            raise ModelError(
                f"the class map {file} has a line that is not whole",
                expected="model_class,dataset_class",
                found=f"line {rows.line_num}",
            )
        entries.setdefault(pair[0].strip(), []).append(pair[1])
    return entries


def _numbers(member: object, known: _Names, outputs: int, file: Path) -> list[int]:
    text = str(member).strip()
    named = known.find(text) if isinstance(member, str) else []
    if len(named) > 1:
        raise ModelError(
            f"the class map {file} names an output by a name that several have",
            expected="its number: " + " or ".join(map(str, named)),
            found=repr(member),
        )
    span = _RANGE.fullmatch(text)
    if named:
        return named
    if span and int(span[1]) <= int(span[2]) < outputs:
        return list(range(int(span[1]), int(span[2]) + 1))
    if text.isdecimal() and int(text) < outputs:
        return [int(text)]
    raise ModelError(
        f"the class map {file} names an output that the model does not have",
        expected=f"a number from 0 to {outputs - 1}, a range such as 3-7, or the name of an output "
        "where the model knows its names",
        found=repr(member),
    )


def _refuse_overlap(
    members: tuple[tuple[int, ...], ...], classes: Sequence[str], file: Path
) -> None:
    owner: dict[int, str] = {}
    for name, numbers in zip(classes, members, strict=True):
        for number in numbers:
            if number in owner:
                raise ModelError(
                    f"the class map {file} gives output {number} to two classes",
                    expected="every output in at most one class",
                    found=f"{owner[number]} and {name}",
                )
            owner[number] = name
