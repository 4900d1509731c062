from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit.certify.benchmark import certify
from audit.certify.settings import load_settings
from audit.config import load_config
from audit.errors import ConfigError


@pytest.mark.parametrize("value", ["x", ",", "", "0.5", "200", "-5", "0,95,", "1e1", "9" * 5000])
def test_strengths_are_whole_percents(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({"strengths": value})
    assert caught.value.problem == "the setting --strengths is not valid"
    assert caught.value.expected == "whole percents from 0 to 100, with commas"


def test_strengths_are_sorted_once_each() -> None:
    assert load_settings({"strengths": " 95, 0,100,95"}).strengths == (0, 95, 100)


@pytest.mark.parametrize(
    "value", ["bogus", "", "auto,bogus", "estimated,estimated", "estimated,auto", "rembg:"]
)
def test_masks_are_refused_as_by_an_audit(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({"masks": value})
    with pytest.raises(ConfigError) as audits:
        load_config(None, {"dataset": "demo", "masks": value})
    assert caught.value.expected == audits.value.expected
    assert caught.value.problem == "the setting --masks is not valid"


def test_masks_keep_their_text() -> None:
    settings = load_settings({"masks": "ellipse, rembg:u2net"})
    assert settings.masks == "ellipse, rembg:u2net"
    assert settings.mask_sources == ("ellipse", "rembg:u2net")


def test_masks_that_the_dataset_lacks_are_refused_before_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("test", 10)):
        for name in ("a", "b"):
            folder = tmp_path / "data" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f"{i:03d}.png")
    out = tmp_path / "out"
    settings = load_settings(
        {"dataset": f"folder:{tmp_path / 'data'}", "masks": "estimated,dataset", "out": out}
    )
    with pytest.raises(ConfigError, match="has no object masks"):
        certify(settings)
    assert not out.exists()
