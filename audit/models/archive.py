"""``torch.export`` archives, copied without what could run code when they are loaded.

torch unpickles what an archive says is pickled, evaluates its expressions of sizes, takes any
function that can be reached from ``torch`` for an operator, and writes its names into Python
source. Each of these is held to what ``torch.export.save`` itself writes.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

# Tensors as plain bytes, and what says which tensor they are.
_RAW = re.compile(r"data/weights/weight_\d+|data/constants/tensor_\d+|archive_(format|version)")
_CONFIG = re.compile(r"data/(weights|constants)/[\w.-]+_config\.json")
_PROGRAM = re.compile(r"models/[\w.-]+\.json")
_SAMPLES = re.compile(r"data/sample_inputs/[\w.-]+\.pt")
_REFUSED = {
    r"data/aotinductor/": "compiled code",
    r"data/constants/(custom|opaque)_obj": "a pickled object",
    r"data/(weights|constants)/.*\.pt$": "pickled tensors, as torch 2.7 and earlier wrote",
}
# What torch writes of an expression: sympy's srepr, or plain arithmetic in earlier releases.
_SYMBOL = re.compile(r"Symbol\('\w+'(?:, \w+=(?:True|False))*\)")
_WORD = re.compile(r"[A-Za-z_]\w*|[^\s\d()+\-*/%,.<>=&|~]")
_SIZE = re.compile(r"[a-z]+\d+")
_FUNCTION = re.compile(
    "Abs|Add|And|CeilDiv|CeilToInt|CleanDiv|Equality|ExprCondPair|Float|FloatPow|FloatTrueDiv"
    "|FloorDiv|FloorToInt|GreaterThan|Identity|IntInfinity|IntTrueDiv|Integer|LShift|LessThan"
    "|Max|Min|Mod|ModularIndexing|Mul|NegativeIntInfinity|Not|Or|Piecewise|Pow|PowByNatural"
    "|PythonMod|RShift|Rational|RoundDecimal|RoundToInt|StrictGreaterThan|StrictLessThan|ToFloat"
    "|TruncToFloat|TruncToInt|Unequality|Where|True|False|ceiling|false|floor|true"
)
_OPERATOR = re.compile(
    r"torch\.ops\.(?:aten|prims|quantized|quantized_decomposed|torchvision)"
    r"\.(?!from_file|save|load)(?:_?[a-z]\w*|__i?(?:and|or|xor|lshift|rshift)__)\.[A-Za-z]\w*"
    r"|torch\.ops\.higher_order\.(?:cond|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|_operator\.(?:abs|add|and_|eq|floordiv|ge|getitem|gt|inv|invert|le|lshift|lt|mod|mul|ne|neg"
    r"|not_|or_|pos|pow|rshift|sub|truediv|xor)"
    r"|math\.[a-z]\w*|torch\._?sym_\w+"
)
_NAME = re.compile(r"(?:[A-Za-z_]\w*)?")
_PLAIN = re.compile(r"[^'\"\\\n\r(){};=]*")
_STRUCTURES = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
# Constants that stay quoted, and texts that nothing runs.
_QUOTED = ("as_string", "as_strings", "nn_module_stack", "torch_version", "verifiers")


class UnsafeError(Exception):
    """Loading the archive could run code from it; the message says what."""


def safe_copy(content: bytes) -> io.BytesIO:
    """Copy an archive, less what is not needed, or refuse it.

    Sample inputs, checks of the input and extra files are left out. Programs that were exported
    on a GPU are moved to the CPU.

    Args:
        content: A file of ``torch.export.save``.

    Returns:
        A file for ``torch.export``, where every record is one that was checked.

    Raises:
        UnsafeError: If it holds pickled objects, compiled code, or names and expressions that are
            more than that.
        RuntimeError: If it is damaged.
    """
    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    copy = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(copy)
    for name in reader.get_all_records():
        record = _checked(name, reader.get_record(name))
        if record is not None:
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    copy.seek(0)
    return copy


def _checked(name: str, content: bytes) -> bytes | None:
    """A record that may be loaded; ``None`` where it is not needed."""
    for pattern, what in _REFUSED.items():
        if re.match(pattern, name):
            raise UnsafeError(f"{what} ({name})")
    if _RAW.fullmatch(name):
        return content
    if _CONFIG.fullmatch(name) or _PROGRAM.fullmatch(name):
        return _checked_json(name, content)
    if _SAMPLES.fullmatch(name):
        _refuse_pickles(name, content)
        return b""
    return None


def _refuse_pickles(name: str, content: bytes) -> None:
    try:
        torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except EOFError:
        return  # there are none
    except (pickle.UnpicklingError, RuntimeError, ValueError) as error:
        raise UnsafeError(f"more than tensors (in {name})") from error


def _checked_json(name: str, content: bytes) -> bytes:
    whole = json.loads(content)
    if "guards_code" in whole:
        # Python source that checks the input: sizes that work would be refused.
        whole["guards_code"] = []
    for key, value in _walk(whole):
        if key == "use_pickle" and value:
            raise UnsafeError(f"a pickled tensor (in {name})")
        if isinstance(value, str) and not _RULES.get(key, _is_plain)(value):
            raise UnsafeError(f"the {key.replace('_', ' ')} {value[:60]!r} (in {name})")
        if isinstance(value, dict):
            odd = [key for key in value if not _is_plain(key)]
            if odd:
                raise UnsafeError(f"the name {odd[0][:60]!r} (in {name})")
            _simplify(value)
    return json.dumps(whole).encode()


def _walk(root: Any) -> Iterator[tuple[str, Any]]:
    """Every value, under the name that it has in the dict around it."""
    stack: list[tuple[str, Any]] = [("", root)]
    while stack:
        key, value = stack.pop()
        yield key, value
        if isinstance(value, dict):
            stack.extend(value.items())
        elif isinstance(value, list):
            stack.extend((key, each) for each in value)


def _simplify(entry: dict[str, Any]) -> None:
    """Move to the CPU; keep only that part of what is told of an operation that names it."""
    if entry.keys() == {"type", "index"} and entry["type"] != "meta":
        entry |= {"type": "cpu", "index": None}
    told = entry.get("metadata")
    if isinstance(told, dict):
        entry["metadata"] = {key: told[key] for key in ("nn_module_stack",) if key in told}


def _is_plain(text: str) -> bool:
    return _PLAIN.fullmatch(text) is not None


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _is_operator(text: str) -> bool:
    return _OPERATOR.fullmatch(text) is not None


def _is_expression(text: str) -> bool:
    """Whether a text is arithmetic with sizes.

    Example:
        >>> _is_expression("Mul(Integer(4), Symbol('s77', positive=True, integer=True))")
        True
        >>> _is_expression("__import__('os')"), _is_expression("2*s0//3")
        (False, True)
    """
    words = _WORD.findall(_SYMBOL.sub("", text))
    return all(_FUNCTION.fullmatch(word) or _SIZE.fullmatch(word) for word in words)


def _is_structure(text: str) -> bool:
    """Whether a text describes tuples, lists and dicts with plain keys, and no class."""
    try:
        for key, value in _walk(json.loads(text)):
            if key == "type" and value not in _STRUCTURES:
                return False
            if key == "context" and value is not None and not _is_context(value):
                return False
    except (ValueError, TypeError):
        return False
    return True


def _is_context(value: object) -> bool:
    keys = json.loads(value) if isinstance(value, str) else value
    return keys is None or (
        isinstance(keys, list) and all(isinstance(key, str) and _is_name(key) for key in keys)
    )


def _is_quoted(text: str) -> bool:
    return True


_RULES: Mapping[str, Callable[[str], bool]] = {
    "expr_str": _is_expression,
    "target": _is_operator,
    "as_operator": _is_operator,
    "in_spec": _is_structure,
    "out_spec": _is_structure,
    "name": _is_name,
    "as_name": _is_name,
    "forward_arg_names": _is_name,
} | dict.fromkeys(_QUOTED, _is_quoted)
