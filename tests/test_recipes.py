"""Every recipe in the documentation runs, against real runs, and finds something."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from audit import run_audit
from audit.data.demo import open_demo
from audit.models import Request, Wanted, open_classifier

DOCS = Path(__file__).parents[1] / "docs"
_SPLIT = """
from dataclasses import replace
from audit.data.demo import open_demo

def split():
    demo = open_demo("test")
    labels = demo.labels.clone()
    labels[::9] = (labels[::9] + 1) % 10
    return replace(demo, name="noisy", labels=labels)
"""


def blocks(name: str) -> list[str]:
    text = (DOCS / name).read_text(encoding="utf-8")
    found = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    return [textwrap.dedent(block) for block in found]


def title(block: str) -> str:
    return re.sub(r"\W+", "-", block.strip().splitlines()[-1])[:40]


RECIPES = blocks("recipes.md")
PYTHON = blocks("python.md")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reports of two runs, the labels of every ninth image wrong."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "noisy_split.py").write_text(_SPLIT)
    demo = open_demo("test")
    classifier = open_classifier(
        Request(model="cnn", dataset="demo", num_classes=10),
        Wanted(classes=demo.classes, native_size=(32, 32)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        for name, more in (("before", {"edits": "none", "masks": "ellipse"}), ("after", {})):
            run_audit(
                network=classifier.module,
                dataset="noisy_split:split",
                limit=180,
                mean=classifier.mean,
                std=classifier.std,
                grids=False,
                out=Path("reports") / name,
                **more,
            )
    return folder


def run_block(code: str, names: dict[str, Any]) -> Any:
    """Run some code; the value of its last line where that is an expression."""
    tree = ast.parse(code)
    last = tree.body[-1]
    if not isinstance(last, ast.Expr):
        exec(compile(tree, "recipe", "exec"), names)
        return None
    exec(compile(ast.Module(tree.body[:-1], []), "recipe", "exec"), names)
    return eval(compile(ast.Expression(last.value), "recipe", "eval"), names)


@pytest.mark.parametrize(
    ("first", "recipe"),
    [
        *(pytest.param(RECIPES[0], block, id=title(block)) for block in RECIPES[1:]),
        *(pytest.param(PYTHON[0], block, id="python-" + title(block)) for block in PYTHON[1:]),
    ],
)
def test_every_recipe_finds_something(
    first: str, recipe: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(here)
    names: dict[str, Any] = {}
    run_block(first, names)
    found = run_block(recipe, names)
    assert found is not None, "a recipe ends with what it finds"
    assert not hasattr(found, "__len__") or len(found) > 0


def test_there_are_recipes_for_every_library() -> None:
    text = "\n".join(RECIPES)
    assert text.count("import polars") >= 3
    assert text.count("import duckdb") >= 3
    assert text.count("pyarrow") >= 2
    assert len(RECIPES) >= 18
