"""Exported programs and TorchScript: they load, they are read right, and nothing in them runs."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from audit.errors import ModelError
from audit.models import PreprocessingFlags, Request, Wanted, open_classifier
from audit.models.programs import fixed_shape, open_program
from tests.models.scripting import scripted
from tests.models.test_frozen import tiny

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")

CLASSES = ("a", "b", "c")
FLAGS = PreprocessingFlags(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def opened(model: Path | nn.Module, native: tuple[int, int] | None = (32, 32), **more: Any) -> Any:
    source = model if isinstance(model, nn.Module) else Request(model=str(model), **more)
    return open_classifier(source, Wanted(classes=CLASSES, native_size=native, flags=FLAGS))


def export(network: nn.Module, file: Path, batch: int | None = None, side: int = 32) -> Path:
    """Write a program that takes any batch, or one size of batch only."""
    images = torch.randn(batch or 2, 3, side, side)
    sizes = None if batch else ({0: torch.export.Dim("batch", min=1, max=1024)},)
    with torch.no_grad():
        program = torch.export.export(network.eval(), (images,), dynamic_shapes=sizes)
    torch.export.save(program, file)
    return file


class Attending(nn.Module):
    """Patches, attention over them, a reshape by the batch, and an output with more in it."""

    def __init__(self, pair: bool = False) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, stride=8)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16 * 16, 3)
        self.pair = pair

    def forward(self, images: Tensor) -> Any:
        tokens = self.norm(self.patch(images).flatten(2).transpose(1, 2))
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        logits = self.head(tokens.reshape(images.shape[0], -1))
        return {"logits": logits, "tokens": tokens} if self.pair else logits


class Shapes(nn.Module):
    """Sums and quotients of sizes, and tensors that are made on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.body = tiny()[:5]
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        doubled = torch.cat([images, images.flip(3)])
        maps = self.body(doubled)
        rows = torch.arange(maps.shape[2], device=maps.device, dtype=maps.dtype) / maps.shape[2]
        maps = (maps * rows[:, None]).view(2, -1, *maps.shape[1:]).mean(dim=0)
        return self.head(maps.mean(dim=(2, 3)))


@pytest.mark.parametrize("network", [tiny(), Attending(), Shapes()], ids=lambda n: type(n).__name__)
def test_a_program_of_any_batch(network: nn.Module, tmp_path: Path) -> None:
    file = export(network, tmp_path / "net.pt2")
    classifier = opened(file)
    assert classifier.batch is None
    assert (classifier.architecture, classifier.weights) == ("net", str(file))
    for count in (1, 3, 4):
        found = classifier.module(IMAGES[:count])
        torch.testing.assert_close(found, network(IMAGES[:count]))


@pytest.mark.parametrize("batch", [1, 4])
def test_a_program_of_one_batch(batch: int, tmp_path: Path) -> None:
    network = tiny().eval()
    classifier = opened(export(network, tmp_path / "net.pt2", batch=batch))
    assert classifier.batch == batch
    assert torch.equal(classifier.module(IMAGES[:batch]), network(IMAGES[:batch]))


def test_a_program_keeps_its_dtype_and_is_fed_float32(tmp_path: Path) -> None:
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    program = torch.export.export(tiny().eval().double(), (images,))
    torch.export.save(program, tmp_path / "net.pt2")
    classifier = opened(tmp_path / "net.pt2")
    assert next(classifier.module.parameters()).dtype == torch.float64


def test_the_logits_of_an_output_with_more_in_it(tmp_path: Path) -> None:
    network = Attending(pair=True).eval()
    classifier = opened(export(network, tmp_path / "net.pt2"))
    torch.testing.assert_close(classifier.module(IMAGES), network(IMAGES)["logits"])


def test_a_program_wants_images_of_its_own_size(tmp_path: Path) -> None:
    network = tiny()
    classifier = opened(export(network, tmp_path / "net.pt2", side=48), native=None)
    assert classifier.preprocessing.geometry is not None
    assert classifier.preprocessing.geometry.size == (48, 48)
    assert "the input that net.pt2 takes" in classifier.preprocessing.describe()


def test_a_program_of_any_size(tmp_path: Path) -> None:
    height, width = (torch.export.Dim(side, min=2, max=64) for side in ("height", "width"))
    network = tiny().eval()
    program = torch.export.export(
        network, (IMAGES,), dynamic_shapes=({2: 8 * height, 3: 8 * width},)
    )
    torch.export.save(program, tmp_path / "net.pt2")
    classifier = opened(tmp_path / "net.pt2", native=(64, 48))
    assert fixed_shape(classifier.module) == (4, None)
    assert classifier.preprocessing.geometry is None
    images = torch.randn(4, 3, 64, 48)
    torch.testing.assert_close(classifier.module(images), network(images))


def test_a_program_in_memory() -> None:
    program = torch.export.export(tiny().eval(), (IMAGES[:1],)).module()
    classifier = opened(program)
    assert classifier.module is program
    assert classifier.batch == 1


def test_any_other_graph_in_memory() -> None:
    classifier = opened(torch.fx.symbolic_trace(tiny().eval()))
    assert classifier.batch is None


def script(network: nn.Module) -> nn.Module:
    return scripted(network.eval())


def trace(network: nn.Module, count: int = 2) -> nn.Module:
    return torch.jit.trace(network.eval(), IMAGES[:count])


class Viewing(nn.Module):
    """Tracing writes its batch down as a number."""

    def __init__(self, rows_first: bool) -> None:
        super().__init__()
        self.body, self.head = tiny()[:5], nn.Linear(8 * 64, 3)
        self.rows_first = rows_first

    def forward(self, images: Tensor) -> Tensor:
        maps = self.body(images)
        count = int(maps.shape[0])
        return self.head(maps.view(count, -1) if self.rows_first else maps.reshape(-1, 512)[:count])


@pytest.mark.parametrize("rows_first", [True, False])
def test_a_trace_of_one_image_is_fed_one_at_a_time(rows_first: bool, tmp_path: Path) -> None:
    network = Viewing(rows_first).eval()
    with pytest.warns(torch.jit.TracerWarning):
        trace(network, 1).save(tmp_path / "net.pt")
    classifier = opened(tmp_path / "net.pt")
    assert classifier.batch == 1
    assert torch.equal(classifier.module(IMAGES[:1]), network(IMAGES[:1]))


@pytest.mark.parametrize("made", [script, trace, lambda n: torch.jit.freeze(script(n))])
@pytest.mark.parametrize("suffix", ["pt", "ts", "torchscript", "bin"])
def test_torchscript(made: Callable[[nn.Module], nn.Module], suffix: str, tmp_path: Path) -> None:
    network = tiny().eval()
    made(network).save(tmp_path / f"net.{suffix}")
    classifier = opened(tmp_path / f"net.{suffix}")
    assert classifier.batch is None
    torch.testing.assert_close(classifier.module(IMAGES), network(IMAGES))


def test_torchscript_in_memory() -> None:
    program = script(tiny())
    assert opened(program).module is program


def test_programs_that_were_exported_in_training_mode_are_refused(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(tiny().train(), (IMAGES[:2],)), tmp_path / "net.pt2")
    dropout = nn.Sequential(nn.Conv2d(3, 3, 8), nn.Flatten(), nn.Dropout(), nn.Linear(1875, 3))
    torch.jit.trace(dropout, IMAGES[:2], check_trace=False).save(tmp_path / "net.pt")
    norm = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1))
    norm.append(nn.Flatten())
    torch.export.save(torch.export.export(norm.train(), (IMAGES[:2],)), tmp_path / "norm.pt2")
    for name, problem in {
        "net.pt2": "gives the same image other logits each time",
        "net.pt": "gives the same image other logits each time",
        "norm.pt2": "gives an image other logits beside other images",
    }.items():
        with pytest.raises(ModelError, match=problem) as caught:
            opened(tmp_path / name)
        assert "call eval() before" in str(caught.value)


def test_probabilities_are_told(tmp_path: Path) -> None:
    told = opened(export(tiny().append(nn.Softmax(dim=1)), tmp_path / "net.pt2")).notes
    assert any("gives probabilities, not logits" in note for note in told)
    plain = opened(export(tiny(), tmp_path / "net.pt2")).notes
    assert not any("probabilities" in note for note in plain)


# Archives that are not what torch.export.save writes.


def edited(source: Path, file: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of an archive with some of its records changed."""
    reader = torch._C.PyTorchFileReader(str(source))
    records = {name: reader.get_record(name) for name in reader.get_all_records()}
    records = {n: r for n, r in records.items() if not n.startswith(".data") and n != "byteorder"}
    change(records)
    writer = torch._C.PyTorchFileWriter(str(file))
    for name, record in records.items():
        writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return file


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


CONFIG = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLES = "data/sample_inputs/model.pt"


def saved(payload: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return buffer.getvalue()


def pickled_weight(records: dict[str, bytes], payload: Payload) -> None:
    config = json.loads(records[CONFIG])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    records[CONFIG] = json.dumps(config).encode()
    records[f"data/weights/{first['path_name']}"] = saved(payload)


def pickled_object(kind: str) -> Callable[[dict[str, bytes], Payload], None]:
    def change(records: dict[str, bytes], payload: Payload) -> None:
        config = json.loads(records[CONSTANTS])
        config["config"]["thing"] = {
            "path_name": f"{kind}_0", "is_param": False, "use_pickle": True, "tensor_meta": None,
        }  # fmt: skip
        records[CONSTANTS] = json.dumps(config).encode()
        records[f"data/constants/{kind}_0"] = pickle.dumps(payload)

    return change


def pickled_samples(records: dict[str, bytes], payload: Payload) -> None:
    records[SAMPLES] = saved(payload)


def pickled_weights_of_old(records: dict[str, bytes], payload: Payload) -> None:
    records["data/weights/model.pt"] = saved({"weight": payload})


def code(payload: Payload) -> str:
    return f"__import__('pathlib').Path({str(payload.marker)!r}).touch()"


def program_with(change: Callable[[Any, str], None]) -> Callable[[dict[str, bytes], Payload], None]:
    def edit(records: dict[str, bytes], payload: Payload) -> None:
        program = json.loads(records["models/model.json"])
        change(program, code(payload))
        records["models/model.json"] = json.dumps(program).encode()

    return edit


def size_expression(program: Any, run: str) -> None:
    values = program["graph_module"]["graph"]["tensor_values"].values()
    size = next(s for value in values for s in value["sizes"] if "as_expr" in s)
    size["as_expr"]["expr_str"] = run


def renamed_input(program: Any, run: str) -> None:
    """The name of an input becomes a parameter in generated source: with a default value."""
    text = json.dumps(program).replace('"input"', json.dumps(f"input={run}"))
    program.clear()
    program.update(json.loads(text))


def renamed_operation(program: Any, run: str) -> None:
    text = json.dumps(program).replace('"conv2d"', json.dumps(f"conv2d={run};conv2d"))
    program.clear()
    program.update(json.loads(text))


def renamed_weight(program: Any, run: str) -> None:
    text = json.dumps(program).replace('"0.weight"', json.dumps(f'x", {run}, "'))
    program.clear()
    program.update(json.loads(text))


def any_function(program: Any, run: str) -> None:
    """An operator that is none: whatever can be reached from torch."""
    node = program["graph_module"]["graph"]["nodes"][0]
    node["target"] = "torch.os.system"
    marker = run.split("'")[3]
    node["inputs"] = [{"name": "", "arg": {"as_string": f"touch {marker}"}, "kind": 1}]


def imported_module(program: Any, run: str) -> None:
    """A structure whose loading imports a module by name."""
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    context = {
        "default_factory_module": "evil", "default_factory_name": "run", "dict_context": [],
    }  # fmt: skip
    leaf = {"type": "collections.defaultdict", "context": context, "children_spec": []}
    signature["out_spec"] = json.dumps([1, leaf])


def enumerated_key(program: Any, run: str) -> None:
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    context = json.dumps([{"__enum__": True, "fqn": "evil:Mode", "name": "RUN"}])
    leaf = {"type": None, "context": None, "children_spec": []}
    spec = {"type": "builtins.dict", "context": context, "children_spec": [leaf]}
    signature["out_spec"] = json.dumps([1, spec])


def argument_names(program: Any, run: str) -> None:
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    signature["forward_arg_names"] = [f"x={run}"]


ATTACKS: dict[str, tuple[Callable[[dict[str, bytes], Payload], None], str]] = {
    "a pickled weight": (pickled_weight, "a pickled tensor"),
    "a custom object": (pickled_object("custom_obj"), "a pickled"),
    "an opaque object": (pickled_object("opaque_obj"), "a pickled"),
    "samples": (pickled_samples, "more than tensors"),
    "old weights": (pickled_weights_of_old, "pickled tensors"),
    "an expression": (program_with(size_expression), "the expr str"),
    "an input": (program_with(renamed_input), "import"),
    "an operation": (program_with(renamed_operation), "import"),
    "a weight's name": (program_with(renamed_weight), "the parameter name"),
    "a function": (program_with(any_function), "the target 'torch.os.system'"),
    "a module": (program_with(imported_module), "the out spec"),
    "an enumeration": (program_with(enumerated_key), "the out spec"),
    "names of arguments": (program_with(argument_names), "the forward arg names"),
    "compiled code": (
        lambda records, _: records.update({"data/aotinductor/model/x.so": b""}), "compiled code",
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_in_an_archive_never_runs(
    attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    marker = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    change, words = ATTACKS[attack]
    good = export(tiny(), tmp_path / "good.pt2")
    bad = edited(good, tmp_path / "bad.pt2", lambda records: change(records, Payload(marker)))
    with pytest.raises(ModelError, match="could run code") as caught:
        opened(bad)
    assert not marker.exists()
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_what_loading_does_not_need_is_not_looked_at(tmp_path: Path) -> None:
    """Checks of the input are Python source, and a program of another name is none."""
    marker = tmp_path / "ran"
    good = export(tiny(), tmp_path / "good.pt2")

    def change(records: dict[str, bytes]) -> None:
        program = json.loads(records["models/model.json"])
        program["guards_code"] = [f"{code(Payload(marker))} or True"]
        records["models/model.json"] = json.dumps(program).encode()
        records["models/evil"] = records["models/model.json"]
        records["extra/notes.txt"] = b"anything"
        records["extra/code.pkl"] = pickle.dumps(Payload(marker))

    network = opened(edited(good, tmp_path / "net.pt2", change)).module
    network(IMAGES)
    assert not marker.exists()


def test_archives_of_the_format_before_are_refused(tmp_path: Path) -> None:
    """torch.export.load falls back to them, and they are unpickled."""
    marker = tmp_path / "ran"
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("x/archive_format", "pt2")
        archive.writestr("version", "8.20")
        archive.writestr("serialized_exported_program.json", "{}")
        for name in ("state_dict", "constants", "example_inputs"):
            archive.writestr(f"serialized_{name}.pt", saved(Payload(marker)))
    with pytest.raises(ModelError, match="cannot be loaded as a model program"):
        open_program(tmp_path / "net.pt2")
    assert not marker.exists()


def test_a_program_of_a_gpu_is_moved_to_the_cpu(tmp_path: Path) -> None:
    good = export(Shapes(), tmp_path / "good.pt2")

    def change(records: dict[str, bytes]) -> None:
        for name in (CONFIG, CONSTANTS, "models/model.json"):
            records[name] = records[name].replace(
                b'{"type": "cpu", "index": null}', b'{"type": "cuda", "index": 0}'
            )
        assert b'"cuda"' in records["models/model.json"]

    classifier = opened(edited(good, tmp_path / "gpu.pt2", change))
    assert classifier.module(IMAGES).device.type == "cpu"
    assert torch.equal(classifier.module(IMAGES), opened(good).module(IMAGES))


def test_wrong_files_have_one_clear_message(tmp_path: Path) -> None:
    good = export(tiny(), tmp_path / "good.pt2")
    (tmp_path / "cut.pt2").write_bytes(good.read_bytes()[:9000])
    (tmp_path / "picture.pt").write_bytes(b"\xff\xd8\xff\xe0rest")
    torch.save(tiny().state_dict(), tmp_path / "weights.pt")
    torch.save(tiny(), tmp_path / "pickled.pt")
    script(tiny()).save(tmp_path / "good.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "good.pt").read_bytes()[:9000])
    edited(good, tmp_path / "none.pt2", lambda records: records.pop("models/model.json"))
    edited(good, tmp_path / "lost.pt2", lambda records: records.pop("data/weights/weight_0"))
    edited(good, tmp_path / "text.pt2", lambda records: records.update({"models/model.json": b"{"}))
    for name, words in {
        "absent.pt2": ["does not exist", "--model"],
        "cut.pt2": ["is not a model program", "b'PK"],
        "cut.pt": ["is not a model program", "b'PK"],
        "picture.pt": ["is not a model program", "a JPEG picture"],
        "weights.pt": ["is not a model program", "--checkpoint"],
        "pickled.pt": ["is not a model program", "torch.nn.modules", "torch.export.save"],
        "none.pt2": ["does not hold one program"],
        "lost.pt2": ["cannot be loaded as a model program", "version of torch"],
        "text.pt2": ["cannot be loaded as a model program"],
    }.items():
        with pytest.raises(ModelError) as caught:
            open_program(tmp_path / name)
        assert all(word in str(caught.value) for word in [name, *words]), caught.value


def test_a_damaged_archive_leaves_the_terminal_alone(tmp_path: Path) -> None:
    """torch's loader writes tracebacks into its log, which goes to the terminal."""
    good = export(tiny(), tmp_path / "good.pt2")
    edited(good, tmp_path / "lost.pt2", lambda records: records.pop("data/weights/weight_0"))
    run = (
        "from audit.models.programs import open_program as o; from pathlib import Path; import sys"
    )
    command = f"{run}\ntry: o(Path(sys.argv[1]))\nexcept Exception as e: print(e)"
    result = subprocess.run(
        [sys.executable, "-c", command, tmp_path / "lost.pt2"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stderr == ""
    assert "cannot be loaded" in result.stdout


def test_a_program_and_a_checkpoint_exclude_each_other(tmp_path: Path) -> None:
    torch.save(tiny().state_dict(), tmp_path / "weights.pt")
    file = export(tiny(), tmp_path / "net.pt2")
    with pytest.raises(ModelError, match="holds its weights") as caught:
        opened(file, checkpoint=tmp_path / "weights.pt")
    assert "weights.pt" in str(caught.value)
