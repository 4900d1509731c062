"""Which models a benchmark trains: several plants in one model, on classes that rotate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from audit.certify.plants import Plant
from audit.errors import ConfigError

Kind = Literal["planted", "clean", "random", "shuffled_labels", "shuffled_masks"]
CHECKS: tuple[Kind, ...] = ("random", "shuffled_labels", "shuffled_masks")

_MOST_PLANTS = 3


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model and what it is audited on.

    Attributes:
        name: For files.
        kind: ``planted``; ``clean``, the same training without cues; ``random``, weights as drawn;
            ``shuffled_labels``, trained on labels that say nothing; ``shuffled_masks``, the clean
            model audited with the object masks of other images.
        seed: Of order, fresh weights and cues.
        strength: Share of a planted class's images that carry its cue.
        plants: The cues; of a clean model those of all planted ones, at strength 0, so that
            what the model does with each cue untrained is measured too.
    """

    name: str
    kind: Kind
    seed: int
    strength: float
    plants: tuple[Plant, ...]


def plan_cases(
    cues: Sequence[str], strengths: Sequence[int], *, seeds: int, num_classes: int, random: int
) -> list[Case]:
    """All models of a benchmark.

    Args:
        cues: What is planted; three to a model at most, and to a third of the classes at most.
        strengths: In percent; 0 gives the clean model.
        seeds: How often.
        num_classes: K.
        random: Networks with random weights; 0 leaves the checks.

    Returns:
        The cases, in the order in which they are made.

    Raises:
        ConfigError: If there are too few classes.

    Example:
        >>> cases = plan_cases(["patch", "frame"], [0, 95], seeds=1, num_classes=10, random=1)
        >>> [case.name for case in cases]
        ['seed0-clean', 'seed0-A095', 'random-0', 'shuffled-labels', 'shuffled-masks']
        >>> [plant.label for plant in cases[1].plants]
        [8, 1]
    """
    if num_classes < 2:
        raise ConfigError("cues are planted into one class of several", found=f"{num_classes}")
    cases = []
    for seed in range(seeds):
        for percent in strengths:
            sets = _sets(cues, percent / 100, seed, num_classes)
            if percent == 0:
                every = tuple(plant for plants in sets for plant in plants)
                cases.append(_case(f"seed{seed}-clean", "clean", seed, plants=every))
                continue
            cases += [
                _case(f"seed{seed}-{_letter(n)}{percent:03d}", "planted", seed, percent, plants)
                for n, plants in enumerate(sets)
            ]
    if random:
        cases += [_case(f"random-{n}", "random", n) for n in range(random)]
        cases.append(_case("shuffled-labels", "shuffled_labels", 0))
        cases.append(_case("shuffled-masks", "shuffled_masks", 0))
    return cases


def _case(
    name: str, kind: Kind, seed: int, percent: int = 0, plants: tuple[Plant, ...] = ()
) -> Case:
    return Case(name=name, kind=kind, seed=seed, strength=percent / 100, plants=plants)


def _sets(
    cues: Sequence[str], strength: float, seed: int, num_classes: int
) -> list[tuple[Plant, ...]]:
    """The plants of each model of one strength and seed."""
    size = min(_MOST_PLANTS, max(1, num_classes // 3))
    step = num_classes // size
    sets = []
    for number, start in enumerate(range(0, len(cues), size)):
        first = num_classes - 2 + number * (num_classes // 2) + seed
        sets.append(
            tuple(
                Plant(cue=cue, label=(first + place * step) % num_classes, strength=strength)
                for place, cue in enumerate(cues[start : start + size])
            )
        )
    return sets


def _letter(number: int) -> str:
    """``A`` for the first set of cues."""
    return chr(ord("A") + number)
