"""Members of LitServe, uvicorn and prometheus_client that have no promise to stay as they are.

A release that changes one of them fails here, with the member's name, before it fails in a server.
"""

import ast
import importlib
import importlib.metadata
import inspect
import textwrap
from typing import Any

import pytest

from serving.inference.lit_api import GeneratorAPI, RowLoop
from serving.observability.buffered import PROMETHEUS_INTERNALS, PROMETHEUS_VERSION
from serving.process.drain import UVICORN_INTERNALS, UVICORN_VERSION, DrainingServer
from serving.process.supervisor import (
    LITSERVE_INTERNALS,
    LITSERVE_VERSION,
    NoTransport,
    Server,
)

LISTS = {
    "litserve": (LITSERVE_VERSION, LITSERVE_INTERNALS),
    "uvicorn": (UVICORN_VERSION, UVICORN_INTERNALS),
    "prometheus_client": (PROMETHEUS_VERSION, PROMETHEUS_INTERNALS),
}
MEMBERS = [(library, path) for library, (_, listed) in LISTS.items() for path in listed]


def owner_of(path: str) -> Any:
    """The class that a member's path names."""
    module, kind, _ = path.rsplit(".", 2)
    return getattr(importlib.import_module(module), kind)


def parameters_of(method: Any) -> str:
    """A method's parameters by name: what matters to one that overrides or calls it."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    found = inspect.signature(method).parameters.values()
    return ", ".join(stars.get(parameter.kind, "") + parameter.name for parameter in found)


def attributes_of(kind: type) -> set[str]:
    """Names that a class, or one that it inherits from, assigns: in its body, or to self."""
    names: set[str] = set()
    for base in kind.__mro__[:-1]:
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names |= {node.attr} if getattr(node.value, "id", "") == "self" else set()
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return names


def complaint(library: str, path: str, said: str | None) -> str | None:
    """What has changed in a member, or None."""
    name = path.rpartition(".")[2]
    try:
        owner = owner_of(path)
        if said is None:
            now: str | None = None if name in attributes_of(owner) else "no attribute any more"
        else:
            now = parameters_of(getattr(owner, name))
    except (ImportError, AttributeError) as error:
        now = f"gone ({error})"
    if now == said:
        return None
    version = importlib.metadata.version(library)
    checked = LISTS[library][0]
    was = "an attribute" if said is None else f"({said})"
    return f"{library} {version}: {path} is {now}; in {checked}, which was checked, it is {was}"


@pytest.mark.parametrize(("library", "path"), MEMBERS)
def test_a_member_is_as_it_was_checked(library: str, path: str) -> None:
    changed = complaint(library, path, LISTS[library][1][path])
    assert changed is None, changed


@pytest.mark.parametrize(
    ("path", "said", "words"),
    [
        ("litserve.server.LitServer._start_server", "self, port", "_start_server is self, port, n"),
        ("litserve.server.LitServer._gone", "self", "LitServer._gone is gone"),
        ("litserve.gone.LitServer.run", "self", "litserve.gone.LitServer.run is gone"),
        ("litserve.server.LitServer._nothing", None, "_nothing is no attribute any more"),
    ],
)
def test_a_member_that_changes_is_named(path: str, said: str | None, words: str) -> None:
    changed = complaint("litserve", path, said)
    assert changed is not None
    assert words in changed
    assert LITSERVE_VERSION in changed


OURS = (Server, DrainingServer, NoTransport, RowLoop, GeneratorAPI)


@pytest.mark.parametrize(
    ("kind", "library"),
    [(kind, "litserve") for kind in OURS] + [(DrainingServer, "uvicorn")],
)
def test_every_member_that_is_overridden_is_listed(kind: type, library: str) -> None:
    listed = {path.rsplit(".", 2)[1:][-1] for path in LISTS[library][1]}
    for base in kind.__mro__[1:]:
        if base.__module__.partition(".")[0] == library:
            shared = {name for name in vars(kind) if name in vars(base)}
            overridden = {name for name in shared if callable(getattr(base, name))}
            assert overridden - {"__init__", "__class_getitem__"} <= listed, kind
