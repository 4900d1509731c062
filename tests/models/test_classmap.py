"""Many outputs of a network as one class of the data: by a file, or by the names alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import get_model_weights

from audit.errors import ModelError
from audit.models import PreprocessingFlags, Wanted, open_classifier
from audit.models.classmap import (
    ClassMap,
    Gathering,
    MappedClasses,
    match_names,
    read_class_map,
)
from tests.models.test_frozen import tiny

CLASSES = ("cat", "dog", "bird")
NAMES = ("tabby", "tiger cat", "poodle", "collie", "robin", "wren", "lorry", "ship")
MEMBERS = ((0, 1), (2, 3), (4, 5))
IMAGENET = tuple(get_model_weights("resnet18").DEFAULT.meta["categories"])


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def read(file: Path, names: tuple[str, ...] | None = NAMES) -> tuple[tuple[int, ...], ...]:
    return read_class_map(file, CLASSES, len(NAMES), names).members


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.toml", "cat = [0, 1]\ndog = [2, 3]\nbird = [4, 5]"),
        ("map.toml", '[classes]\ncat = "0-1"\ndog = "2 - 3"\nbird = ["4", 5, 4]'),
        ("map.toml", 'cat = ["tabby", "tiger cat"]\ndog = ["poodle", 3]\nbird = "4-5"'),
        ("map.toml", 'cat = ["Tabby", "tiger_cat"]\ndog = "2-3"\nbird = "4-5"'),
        ("map", "cat = [0, 1]\ndog = [2, 3]\nbird = [4, 5]"),
        ("map.json", '{"dog": [2, 3], "cat": ["0-1"], "bird": ["robin", "wren"]}'),
        ("MAP.JSON", '\ufeff{"classes": {"dog": "2-3", "cat": "0-1", "bird": "4-5"}}'),
        ("map.csv", "model_class,dataset_class\n0,cat\n1,cat\n2,dog\n3,dog\n4,bird\n5,bird\n"),
        ("map.csv", "dataset_class, model_class, why\ncat, 0-1, a\ndog, poodle, b\ndog, 3\n"
                    "bird, robin\nbird, wren"),
    ],
)  # fmt: skip
def test_every_form_of_a_map(name: str, text: str, tmp_path: Path) -> None:
    assert read(written(tmp_path, name, text)) == MEMBERS


def test_a_class_of_the_data_may_be_called_classes(tmp_path: Path) -> None:
    file = written(tmp_path, "map.toml", "classes = [0]\nstudents = [1]")
    found = read_class_map(file, ("students", "classes"), 2, None)
    assert found.members == ((1,), (0,))


def test_numbers_are_not_names_and_names_may_be_numbers(tmp_path: Path) -> None:
    file = written(tmp_path, "map.json", '{"a": ["1"], "b": [1]}')
    assert read_class_map(file, ("a", "b"), 2, ("1", "0")).members == ((0,), (1,))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("map.toml", "cat = 0\ndog = 1\nbird = 2\nfish = 3",
         ["names a class that the data does not have", "found: fish", "expected: cat, dog, bird"]),
        ("map.toml", "cat = 0\ndog = 1", ["gives no outputs of the model to 'bird'"]),
        ("map.toml", "cat = []\ndog = 1\nbird = []",
         ["gives no outputs of the model to 'cat'", "2 classes without: cat, bird"]),
        ("map.toml", "cat = 8\ndog = 1\nbird = 2",
         ["an output that the model does not have", "found: 8", "from 0 to 7"]),
        ("map.toml", "cat = -1\ndog = 1\nbird = 2", ["does not have", "found: -1"]),
        ("map.toml", "cat = 1.0\ndog = 1\nbird = 2", ["does not have", "found: 1.0"]),
        ("map.toml", 'cat = "6-8"\ndog = 1\nbird = 2', ["does not have", "found: '6-8'"]),
        ("map.toml", 'cat = "5-3"\ndog = 1\nbird = 2', ["does not have", "found: '5-3'"]),
        ("map.toml", 'cat = "lion"\ndog = 1\nbird = 2', ["does not have", "found: 'lion'"]),
        ("map.toml", "cat = [[1]]\ndog = 1\nbird = 2", ["does not have", "found: [1]"]),
        ("map.toml", 'cat = "0-2"\ndog = 2\nbird = 3',
         ["gives output 2 to two classes", "cat and dog"]),
        ("map.toml", "cat: 1", ["cannot be read", "line 1"]),
        ("map.json", '{"cat": 1', ["cannot be read", "TOML or JSON"]),
        ("map.json", "[1, 2]", ["holds no classes", "found: a list"]),
        ("map.json", "3", ["holds no classes"]),
        ("map.csv", "a,b\n1,2", ["lacks a column", "found: a,b"]),
        ("map.csv", "", ["lacks a column"]),
        ("map.csv", "model_class,dataset_class\n1", ["a line that is not whole", "line 2"]),
        ("map.csv", "model_class,dataset_class\n1,\n", ["a line that is not whole", "line 2"]),
    ],
)  # fmt: skip
def test_maps_that_are_wrong(name: str, text: str, words: list[str], tmp_path: Path) -> None:
    file = written(tmp_path, name, text)
    with pytest.raises(ModelError) as caught:
        read(file)
    assert all(word in str(caught.value) for word in [str(file), *words]), caught.value
    assert caught.value.exit_code == 2


def test_maps_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.toml does not exist"):
        read(tmp_path / "absent.toml")
    with pytest.raises(ModelError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "map.csv").write_bytes(b"\xff\xfe\x00model")
    with pytest.raises(ModelError, match="cannot be read"):
        read(tmp_path / "map.csv")
    (tmp_path / "long.csv").write_text("model_class,dataset_class\n" + "1" * 200_000 + ",cat")
    with pytest.raises(ModelError, match="cannot be read"):
        read(tmp_path / "long.csv")


def test_names_that_several_outputs_have(tmp_path: Path) -> None:
    file = written(tmp_path, "map.toml", 'cat = "crane"\ndog = 0\nbird = 1')
    with pytest.raises(ModelError, match="a name that several have") as caught:
        read(file, ("crane", "b", "crane", "d", "e", "f", "g", "h"))
    assert "its number: 0 or 2" in str(caught.value)


def test_names_where_the_model_has_none(tmp_path: Path) -> None:
    file = written(tmp_path, "map.toml", 'cat = "tabby"\ndog = 0\nbird = 1')
    with pytest.raises(ModelError, match="where the model knows its names"):
        read(file, None)


@pytest.mark.parametrize("by", ["max", "sum", "mean"])
@pytest.mark.parametrize("members", [MEMBERS, ((1,), (7, 0, 3), (2,)), ((5,), (4,), (6,))])
def test_how_members_are_gathered(members: tuple[tuple[int, ...], ...], by: Gathering) -> None:
    """By the strongest, or so that probabilities after the softmax are sums or means of theirs."""
    network = tiny(8).eval()
    images = 5 * torch.randn(6, 3, 16, 16)
    raw = network(images).softmax(dim=1)
    gather = {"max": torch.amax, "sum": torch.sum, "mean": torch.mean}[by]
    parts = torch.stack([gather(raw[:, list(numbers)], dim=1) for numbers in members], dim=1)
    mapped = MappedClasses(network, ClassMap(members, by=by))(images).softmax(dim=1)
    torch.testing.assert_close(mapped, parts / parts.sum(dim=1, keepdim=True))


def test_the_strongest_member_decides() -> None:
    mapped = MappedClasses(nn.Identity(), ClassMap(((0, 2, 3), (1,))))
    raw = torch.tensor([[1.0, 5.0, 3.0, 2.0], [-1.0, 5.0, -3.0, -2.0]], requires_grad=True)
    assert mapped(raw).tolist() == [[3.0, 5.0], [-1.0, 5.0]]
    (gradient,) = torch.autograd.grad(mapped(raw)[:, 0].sum(), raw)
    assert gradient.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("by", ["sum", "mean"])
def test_gradients_of_sums_are_finite_and_reach_all_members(by: Gathering) -> None:
    mapped = MappedClasses(nn.Identity(), ClassMap(((0,), (1, 2, 3)), by=by))
    raw = torch.tensor([[1.0, 200.0, -200.0, 199.0]], requires_grad=True)
    mapped(raw)[0, 1].backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()
    assert raw.grad[0, 0] == 0
    assert float(raw.grad.sum()) == pytest.approx(1, abs=1e-5)
    tangent = torch.func.jvp(mapped, (raw.detach(),), (torch.ones(1, 4),))[1]
    torch.testing.assert_close(tangent, torch.ones(1, 2))


def test_a_mapped_network_has_the_weights_of_the_network() -> None:
    network = tiny(8)
    mapped = MappedClasses(network, ClassMap(MEMBERS))
    assert {n.removeprefix("network.") for n in mapped.state_dict()} == set(network.state_dict())


class TestByName:
    """Without a file: the same names in another order, or some of many."""

    def opened(
        self, tmp_path: Path, names: tuple[str, ...], classes: tuple[str, ...], **more: Any
    ) -> Any:
        from safetensors.torch import save_file

        from audit.models import Request, build
        from audit.models.checkpoint import HEADER

        header = json.dumps({"classes": names, "mean": [0, 0, 0], "std": [1, 1, 1]})
        network = build("cnn", len(names))
        save_file(network.state_dict(), tmp_path / "m.safetensors", metadata={HEADER: header})
        request = Request(model="cnn", checkpoint=tmp_path / "m.safetensors")
        wanted = Wanted(classes=classes, native_size=(32, 32), **more)
        return open_classifier(request, wanted), network.eval()

    def test_the_same_names_in_another_order(self, tmp_path: Path) -> None:
        classifier, network = self.opened(tmp_path, CLASSES, ("dog", "BIRD", "cat"))
        images = torch.randn(2, 3, 32, 32)
        assert classifier.classes == ("dog", "BIRD", "cat")
        assert torch.equal(classifier.module(images), network(images)[:, [1, 2, 0]])
        same, _ = self.opened(tmp_path, CLASSES, CLASSES)
        assert same.classmap is None

    def test_some_of_many_names(self, tmp_path: Path) -> None:
        wanted = ("golden_retriever", "tench", "Tabby")
        classifier, network = self.opened(tmp_path, IMAGENET, wanted)
        assert classifier.classmap == ClassMap(((207,), (0,), (281,)))
        images = torch.randn(2, 3, 32, 32)
        assert torch.equal(classifier.module(images), network(images)[:, [207, 0, 281]])
        assert classifier.classmap.identity()["members"] == [[207], [0], [281]]

    def test_names_that_do_not_fit(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="trained on other classes") as caught:
            self.opened(tmp_path, CLASSES, ("cat", "dog", "fish"))
        assert "expected: cat, dog, fish" in str(caught.value)
        with pytest.raises(ModelError, match="another number of classes") as caught:
            self.opened(tmp_path, IMAGENET, ("tench", "cat"))
        assert "--class-map FILE" in str(caught.value)

    def test_numbers_are_those_of_outputs_whose_names_are_known(self, tmp_path: Path) -> None:
        for count in (3, 2):
            numbers = tuple(map(str, range(count)))
            classifier, network = self.opened(tmp_path, CLASSES, numbers, by_number=True)
            images = torch.randn(2, 3, 32, 32)
            assert classifier.classes == CLASSES
            assert classifier.classmap is None
            assert torch.equal(classifier.module(images), network(images))
            assert "the data's labels are numbers: taken as those of the model's 3 outputs, 0 is " \
                f"'{CLASSES[0]}'" in classifier.notes[-1]  # fmt: skip
        with pytest.raises(ModelError, match="trained on other classes"):
            self.opened(tmp_path, CLASSES, ("0", "1", "2"))

    def test_numbers_beyond_the_outputs(self, tmp_path: Path) -> None:
        odd = "1 of 9 labels is no number of a class: 'x' in row 2"
        with pytest.raises(ModelError, match="another number of classes") as caught:
            self.opened(tmp_path, CLASSES, ("0", "1", "2", "3"), by_number=True, odd_labels=odd)
        assert "expected: 4 outputs, for labels from 0 to 3" in str(caught.value)
        assert "look whether the label 3 is a mistake" in str(caught.value)
        assert f"mend the labels ({odd}); else" in str(caught.value)

    def test_a_file_decides_before_the_names(self, tmp_path: Path) -> None:
        file = written(tmp_path, "map.toml", 'cat = ["dog", "bird"]\ndog = "cat"')
        classifier, _ = self.opened(tmp_path, CLASSES, ("cat", "dog"), class_map=file)
        assert classifier.classmap == ClassMap(((1, 2), (0,)))
        classifier, network = self.opened(
            tmp_path, CLASSES, ("cat", "dog"), class_map=file, class_map_by="sum"
        )
        images = torch.randn(2, 3, 32, 32)
        sums = network(images)[:, 1:].logsumexp(dim=1)
        torch.testing.assert_close(classifier.module(images)[:, 0], sums)

    def test_a_file_needs_names_of_the_data(self, tmp_path: Path) -> None:
        flags = PreprocessingFlags(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        file = written(tmp_path, "map.toml", "cat = 0")
        wanted = Wanted(classes=None, native_size=(32, 32), flags=flags, class_map=file)
        with pytest.raises(ModelError, match="needs the names of the data's classes"):
            open_classifier(tiny(3), wanted)

    def test_the_same_order_is_known_in_spite_of_two_cranes(self) -> None:
        described = ("tench, Tinca tinca", "crane", "goldfish", "crane")
        assert match_names(("tench", "crane", "Goldfish", "crane"), described) == ClassMap(
            ((0,), (1,), (2,), (3,))
        )
        assert match_names(("crane", "tench"), described) is None
        assert match_names(("Tinca tinca", "goldfish"), described) == ClassMap(((0,), (2,)))
        assert match_names(("tench", "Tinca tinca"), described) is None
