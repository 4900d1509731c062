from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.certify.plan import plan_cases
from audit.certify.plants import CUES
from audit.certify.settings import load_settings
from audit.errors import ConfigError


def test_all_cues_take_two_models_a_strength() -> None:
    cases = plan_cases(tuple(CUES), (0, 50, 95), seeds=2, num_classes=10, random=2)
    assert [case.name for case in cases[:5]] == [
        "seed0-clean",
        "seed0-A050",
        "seed0-B050",
        "seed0-A095",
        "seed0-B095",
    ]
    assert [case.kind for case in cases[10:]] == [
        "random",
        "random",
        "shuffled_labels",
        "shuffled_masks",
    ]
    first = {plant.cue: plant.label for plant in cases[1].plants}
    assert first == {"patch": 8, "watermark": 1, "object_colour": 4}
    assert {plant.strength for plant in cases[1].plants} == {0.5}
    again = {plant.cue: plant.label for plant in cases[6].plants}
    assert again == {"patch": 9, "watermark": 2, "object_colour": 5}
    assert [plant.strength for plant in cases[0].plants] == [0.0] * 6


@given(
    st.integers(2, 40), st.lists(st.sampled_from(list(CUES)), min_size=1, unique=True),
    st.integers(1, 4),
)  # fmt: skip
def test_no_class_has_two_cues_in_a_model(classes: int, cues: list[str], seeds: int) -> None:
    cases = plan_cases(cues, (0, 100), seeds=seeds, num_classes=classes, random=0)
    planted = [case for case in cases if case.kind == "planted"]
    for case in planted:
        labels = [plant.label for plant in case.plants]
        assert len(set(labels)) == len(labels)
        assert all(0 <= label < classes for label in labels)
        assert len(labels) <= max(1, classes // 3)
    for seed in range(seeds):
        met = [plant.cue for case in planted if case.seed == seed for plant in case.plants]
        assert met == cues
    assert len({case.name for case in cases}) == len(cases)


def test_one_class_is_too_few() -> None:
    with pytest.raises(ConfigError, match="one class of several"):
        plan_cases(["patch"], [0], seeds=1, num_classes=1, random=0)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"cues": "patch,rain"}, "--cues"),
        ({"cues": "patch,patch"}, "--cues"),
        ({"strengths": "0,101"}, "--strengths"),
        ({"strengths": "half"}, "--strengths"),
        ({"seeds": 0}, "--seeds"),
        ({"train_limit": 5}, "--train-limit"),
        ({"model": "resnet50"}, "--model"),
        ({"kept": 1.5}, "--kept"),
        ({"mean": (0.5, 0.5)}, "--mean"),
    ],
)
def test_wrong_settings_are_named(flags: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as raised:
        load_settings(flags)
    assert raised.value.expected
    assert raised.value.exit_code == 2


def test_flags_that_were_not_given_leave_the_defaults() -> None:
    settings = load_settings({"dataset": None, "strengths": "95, 0,95", "seeds": 2})
    assert settings.dataset == "demo"
    assert settings.strengths == (0, 95)
    assert settings.cues == tuple(CUES)
