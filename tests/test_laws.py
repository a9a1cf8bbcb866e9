"""The three import laws of the architecture, kept by reading the imports, and by trying.

1. `models` imports neither `training` nor `serving`; they never import each other.
2. `serving` and what of `models` it needs never import torch: the serving image has none.
3. Nothing imports from `tests` or `benchmarks`.

An import counts wherever it stands: in a function, under TYPE_CHECKING, by import_module.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("models", "training", "serving")
TORCHLESS = (
    "bundle",
    "cli",
    "errors",
    "generator",
    "grid",
    "interpolation",
    "latents",
    "manifest",
    "repository",
)
# What only the extra `train` installs.
TRAIN_ONLY = ("torch", "torchvision", "onnx", "onnxscript", "sklearn", "tensorboard", "tyro")

Graph = Mapping[str, set[str]]


def imports_of(source: str, module: str, *, is_package: bool) -> set[str]:
    """Every dotted name that a module's source imports, `from a import b` as a.b."""
    found: set[str] = set()
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            found |= {f"{origin}.{alias.name}" for alias in node.names} | {origin}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            found |= {
                argument.value
                for argument in node.args[:1]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            }
    return found


def modules(root: Path, rooms: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for room in rooms:
        for path in sorted((root / room).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def read(root: Path, rooms: tuple[str, ...] = ROOMS) -> Graph:
    """Each module of the rooms with what it imports."""
    return {
        module: imports_of(path.read_text(), module, is_package=path.name == "__init__.py")
        for module, path in modules(root, rooms)
    }


def reached(graph: Graph, start: str) -> dict[str, str]:
    """Every name that importing `start` leads to, with the chain that leads there."""
    chains = {start: start}
    waiting = [start]
    while waiting:
        module = waiting.pop()
        imported = set(graph.get(module, ()))
        for name in [module, *imported]:  # importing a.b.c runs a and a.b first
            parts = name.split(".")
            imported |= {".".join(parts[:i]) for i in range(1, len(parts))}
        for name in sorted(imported - chains.keys()):
            chains[name] = f"{chains[module]} -> {name}"
            waiting.append(name)
    return chains


def violations(graph: Graph, start: str, forbidden: tuple[str, ...]) -> list[str]:
    """Chains from a module to any of the forbidden packages."""
    return [
        chain for name, chain in reached(graph, start).items() if name.split(".")[0] in forbidden
    ]


GRAPH = read(ROOT)


@pytest.mark.parametrize("module", [module for module in GRAPH if module.startswith("models")])
def test_models_knows_neither_training_nor_serving(module):
    assert not violations(GRAPH, module, ("training", "serving"))


@pytest.mark.parametrize(("room", "other"), [("training", "serving"), ("serving", "training")])
def test_training_and_serving_never_meet(room, other):
    members = [module for module in GRAPH if module.split(".")[0] == room]
    assert len(members) > 3
    assert not [chain for member in members for chain in violations(GRAPH, member, (other,))]


@pytest.mark.parametrize(
    "module",
    [
        *(module for module in GRAPH if module.split(".")[0] == "serving"),
        *(f"models.{name}" for name in TORCHLESS),
    ],
)
def test_serving_reaches_no_torch(module):
    assert module in GRAPH
    assert not violations(GRAPH, module, TRAIN_ONLY)


def test_nothing_imports_tests_or_benchmarks():
    for module in GRAPH:
        assert not violations(GRAPH, module, ("tests", "benchmarks")), module


IMPORT_ALL = """
import importlib, pkgutil, sys

BLOCKED = set(sys.argv[1].split(","))

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked)", name=name)

sys.meta_path.insert(0, Refuse())
import serving
names = [m.name for m in pkgutil.walk_packages(serving.__path__, "serving.")]
for name in [*names, *sys.argv[2].split(",")]:
    if not name.endswith("__main__"):
        importlib.import_module(name)
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & BLOCKED, loaded & BLOCKED
print(len(names))
"""


def test_serving_starts_where_torch_is_not_installed():
    blocked = ",".join((*TRAIN_ONLY, "training"))
    torchless = ",".join(f"models.{name}" for name in TORCHLESS)
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, blocked, torchless],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.splitlines()[-1]) > 3


@pytest.fixture
def sources(tmp_path):
    """A project that keeps the laws, to break them in."""
    files = {
        "models/__init__.py": "",
        "models/bundle.py": "import numpy\n",
        "models/networks/__init__.py": "import torch\n",
        "models/networks/mlp.py": "",
        "training/__init__.py": "",
        "training/loop.py": "from models.networks import mlp\n",
        "serving/__init__.py": "",
        "serving/engine.py": "from models import bundle\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_lawful_project_has_no_violation(sources):
    graph = read(sources)
    assert not violations(graph, "serving.engine", ("torch", "training"))
    assert violations(graph, "training.loop", ("torch",)) == [
        "training.loop -> models.networks -> torch"
    ]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("serving/engine.py", "import torch"),
        ("serving/engine.py", "import torch.nn.functional as F"),
        ("serving/engine.py", "from torch import nn"),
        ("serving/engine.py", "def f():\n    import torch"),
        (
            "serving/engine.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
        ),
        ("serving/engine.py", "import importlib\nimportlib.import_module('torch')"),
        ("serving/engine.py", "__import__('torch')"),
        ("serving/engine.py", "from models.networks import mlp"),
        ("serving/engine.py", "import models.networks.mlp"),
        ("serving/__init__.py", "import torch"),
        ("models/__init__.py", "import torch"),
        ("models/bundle.py", "from .networks import mlp"),
        ("models/bundle.py", "from . import networks"),
        ("models/bundle.py", "from training import loop"),
    ],
)
def test_every_way_to_torch_is_found(sources, file, text):
    (sources / file).write_text(f"from models import bundle\n{text}\n")
    assert violations(read(sources), "serving.engine", ("torch",))
