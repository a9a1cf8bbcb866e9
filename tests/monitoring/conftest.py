"""Debian's Prometheus, the rules as it reads them, and a server to watch."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "k8s/components/monitoring"
RULE = MONITORING / "prometheus-rule.yaml"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Finds promtool and prometheus; without, skips, or fails if REQUIRE_PROMETHEUS is set."""

    def find(name: str) -> str:
        found = shutil.which(name)
        if found is None:
            reason = f"{name} is missing: apt-get install prometheus"
            if os.environ.get("REQUIRE_PROMETHEUS"):
                pytest.fail(reason)
            pytest.skip(reason)
        return found

    return find


@pytest.fixture(scope="session")
def rules_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rules.yml, made of the PrometheusRule by the very command that compose.yaml runs."""
    rules = tmp_path_factory.mktemp("rules") / "rules.yml"
    shell, flags, script = load(ROOT / "compose.yaml")["services"]["prometheus"]["entrypoint"]
    command = script.splitlines()[0].replace("$$", "$")
    for there, here in (
        ("/etc/prometheus/prometheus-rule.yaml", RULE),
        ("/tmp/rules.yml", rules),
    ):
        assert there in command
        command = command.replace(there, str(here))
    subprocess.run([shell, flags, command], check=True)
    return rules


@pytest.fixture(scope="session")
def all_rules() -> list[dict[str, Any]]:
    """Every recording and alerting rule."""
    return [rule for group in load(RULE)["spec"]["groups"] for rule in group["rules"]]
