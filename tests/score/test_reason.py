from __future__ import annotations

import itertools

import torch

from audit.score.reason import REASONS, find_reasons


def test_every_combination_of_three_classes_by_the_definitions() -> None:
    rows = list(itertools.product(range(3), range(3), range(3), range(-1, 3), (False, True)))
    obj, back, predicted, label, by_label = (
        torch.tensor(values) for values in zip(*rows, strict=True)
    )
    target = torch.where(by_label & (label >= 0), label, predicted)
    found = find_reasons(obj, back, target, predicted, label)
    for n, (o, b, p, y, _) in enumerate(rows):
        t = int(target[n])
        reason = {(True, False): "object", (False, True): "background", (True, True): "both"}.get(
            (o == t, b == t), "neither"
        )
        assert REASONS[found.reason[n]] == reason
        flags = [
            int(flag[n])
            for flag in (
                found.right_for_wrong_reason,
                found.wrong_because_of_background,
                found.context_driven,
            )
        ]
        if y < 0:
            assert flags == [-1, -1, -1]
            continue
        assert flags[0] == (p == y and reason == "background")
        assert flags[1] == (p != y and b == p and o != p)
        assert flags[2] == (o != y and b == y)
