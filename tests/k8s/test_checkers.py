"""checkov, yamllint and hadolint have nothing to say but what is answered here.

They live in an environment of their own (`make checkers`); .ci/run sets REQUIRE_CHECKERS, so that
they aren't skipped there.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.k8s.rendering import CASES, ROOT, has, rendered

SKIPS = {
    "CKV_K8S_43": "an image's digest isn't known before it is pushed: the overlay of a real "
    "cluster sets it (`kustomize edit set image`), docs/deployment.md says so",
    "CKV_K8S_15": "images are named by release or digest, neither of which moves: to pull them "
    "again at every start makes a registry's outage ours",
}
"""checkov's checks that don't hold, each with the reason."""
ONLY_IN = {
    "local": {
        "CKV_K8S_14": "the image was just built here",
        "CKV_K8S_21": "podman knows no namespaces",
        "CKV_K8S_8": "podman needs curl in the image for it; the image's HEALTHCHECK does the same",
        "CKV_K8S_26": "the host port is how one reaches a pod without a cluster",
    },
    "minimal": {"CKV_K8S_21": "a first cluster is of one person, who may name a namespace or not"},
}
WRITABLE_ROOT = {"CKV_K8S_22": "what gpu/writable-root is for, and all that it does"}
ONLY_IN |= {case: WRITABLE_ROOT for case in CASES if has(case, "gpu/writable-root")}
NO_NAMESPACE = {"CKV_K8S_21": "the base and components leave the namespace to an overlay"}


@pytest.fixture
def checker() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    def run(name: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        path = ROOT / ".build/checkers/bin" / name
        if not path.exists():
            if os.environ.get("REQUIRE_CHECKERS"):
                pytest.fail(f"no {path}: make checkers")
            pytest.skip("make checkers installs it")
        command = [str(path), *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    return run


def test_yamllint(checker: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    done = checker("yamllint", "--strict", "--config-file", ".yamllint.yaml", "k8s")
    assert done.returncode == 0, done.stdout


def test_hadolint(checker: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    done = checker("hadolint", "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_checkov(
    checker: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    """One run over everything that is rendered; every skip is needed."""
    names = {}
    for case in CASES:
        name = case.replace("/", "-") + ".yaml"
        names[f"/{name}"] = case
        (tmp_path / name).write_text(rendered(case))
    done = checker(
        "checkov",
        *("--directory", tmp_path, "--framework", "kubernetes", "--skip-download"),
        *("--output", "json", "--quiet", "--compact"),
    )
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 1000, done.stderr
    assert report["summary"]["parsing_errors"] == 0
    failed = {
        (names[check["file_path"]], check["check_id"]): check
        for check in report["results"]["failed_checks"]
    }
    unexplained = {
        f"{case}: {key} {check['check_name']} {check['resource']}"
        for (case, key), check in failed.items()
        if key not in allowed(case)
    }
    assert unexplained == set()
    needed = {key for _, key in failed}
    assert needed >= SKIPS.keys()
    for case, skips in ONLY_IN.items():
        assert {key for name, key in failed if name == case} >= skips.keys(), case


def allowed(case: str) -> set[str]:
    explained = SKIPS | ONLY_IN.get(case, {})
    return set(explained | (NO_NAMESPACE if case.startswith("base+") else {}))
