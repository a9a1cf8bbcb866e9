"""Every manifest against Kubernetes' schemas, or ours of custom resources' documented fields."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.k8s.rendering import CASES, Manifest, manifests, pods

VERSIONS = ["1.31", "1.34", kubernetes_validate.latest_version()]
SCHEMAS = Path(__file__).parent / "schemas"


def schema(manifest: Manifest) -> dict[str, Any] | None:
    """The custom resource's; None where the kind is Kubernetes' own."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    if "." not in group or (group.endswith(".k8s.io") and not group.startswith("gateway.")):
        return None
    path = SCHEMAS / f"{group}_{version}_{manifest['kind']}.json".lower()
    assert path.exists(), f"a custom resource without a schema: write {path}"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def distinct() -> dict[str, Manifest]:
    """Every manifest once, however many cases have it, and the pods inside custom resources."""
    found = {}
    for case in CASES:
        wanted = [manifest for manifest in manifests(case) if schema(manifest) is None]
        for name, pod in pods(case).items():
            metadata = {"name": name}
            wanted.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod})
        found |= {json.dumps(manifest, sort_keys=True): manifest for manifest in wanted}
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_is_valid_kubernetes(version: str) -> None:
    for manifest in distinct().values():
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_custom_resources_are_valid(case: str) -> None:
    for manifest in manifests(case):
        found = schema(manifest)
        if found is not None:
            jsonschema.validate(manifest, found, jsonschema.Draft202012Validator)


def test_every_schema_is_strict_and_used() -> None:
    """A schema that allows any field would find no typing mistake."""
    used = set()
    for case in CASES:
        for manifest in manifests(case):
            found = schema(manifest)
            if found is not None:
                used.add(found["title"])
                wrong = {**manifest, "spec": {**manifest["spec"], "replicaz": 1}}
                with pytest.raises(jsonschema.ValidationError, match="replicaz"):
                    jsonschema.validate(wrong, found, jsonschema.Draft202012Validator)
    titles = {json.loads(path.read_text())["title"] for path in SCHEMAS.glob("*.json")}
    assert used == titles
