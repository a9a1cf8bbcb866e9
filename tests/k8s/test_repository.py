"""The repository's command line in a cluster: what it does by itself, and the lines to copy."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from models.repository import Repository
from models.repository.__main__ import main
from tests.k8s.rendering import K8S, REPOSITORY, ROOT, Manifest, kustomize, of_kind, pods
from training.cli.command import parse as parse_training

DOCS = [ROOT / "docs/deployment.md", ROOT / "docs/runbook.md"]
PLACE = "/model-repository"
KUBECTL = Path(sys.executable).with_name("kubectl")


def cron_job(name: str) -> Manifest:
    (found,) = (m for m in of_kind("cpu", "CronJob") if m["metadata"]["name"] == name)
    return found["spec"]


def command_of(job: Manifest) -> list[str]:
    """COMMAND, in the words that the shell makes of it."""
    (container,) = job["template"]["spec"]["containers"]
    (entry,) = (e for e in container["env"] if e["name"] == "COMMAND")
    return shlex.split(entry["value"])


def job_of(cron: str, name: str) -> str:
    """What `kubectl create job NAME --from=cronjob/CRON --dry-run=client -o yaml` prints."""
    template = cron_job(cron)["jobTemplate"]
    metadata = {**template["metadata"], "name": name}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}
    return yaml.safe_dump(job)


def shell_lines() -> list[str]:
    """Every `kubectl create job` of the two pages, whole, and those inside of a sentence."""
    text = "\n".join(path.read_text() for path in DOCS).replace("\\\n", " ")
    text = with_names(text)
    found = re.findall(r"`(kubectl create job [^`]+)`", text)
    for match in re.finditer(r"^ *(kubectl create job )", text, re.M):
        end = text.index("\n", match.end())
        while text.count("'", match.start(), end) % 2:
            end = text.index("\n", end + 1)
        found.append(text[match.start(1) : end])
    return found


def with_names(text: str) -> str:
    """A page with the names of its Jobs put in, as the shell does a moment later."""
    text = text.replace("$(date +%s)", "1790000000")
    first, *blocks = re.split(r"^ *job=", text, flags=re.M)
    named = [block.replace('"$job"', re.split(r"\s", block, maxsplit=1)[0]) for block in blocks]
    return re.sub(r'"(saddlepoint-retrain-\d+)"', r"\1", "\n".join([first, *named]))


def run(line: str, stdin: str) -> Manifest:
    """The part of a line between `kubectl create job` and `kubectl create -f -`, for real."""
    words = shlex.split(line)
    assert words[0] == "kubectl"
    assert "--local" in words
    done = subprocess.run([KUBECTL, *words[1:]], input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(yaml.safe_load(done.stdout))


def test_old_versions_go_by_themselves(tmp_path: Path, tiny_repository: Path) -> None:
    """By the shell, as in the pod, on a repository with more versions than are kept."""
    spec = cron_job(REPOSITORY)
    assert not spec.get("suspend")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] > 0
    assert 0 < spec["successfulJobsHistoryLimit"] <= 3
    assert 0 < spec["failedJobsHistoryLimit"] <= 3
    job = spec["jobTemplate"]["spec"]
    assert job["activeDeadlineSeconds"] > 0
    assert job["ttlSecondsAfterFinished"] > 0
    verb, flag, keep = command_of(job)
    assert (verb, flag) == ("prune", "--keep")

    repository = Repository(tmp_path)
    for _ in range(int(keep) + 2):
        repository.publish("grey", Repository(tiny_repository).bundle("grey"))
    repository.promote("grey", 1)
    said = as_in_the_pod(tmp_path, " ".join(command_of(job)))
    newest = list(range(3, int(keep) + 3))
    assert repository.versions("grey") == [1, *newest], said


def test_a_command_is_words_and_nothing_more(tmp_path: Path, tiny_repository: Path) -> None:
    """No pattern is expanded, and no second command begins."""
    with pytest.raises(AssertionError, match=r"'\*'"):
        as_in_the_pod(tiny_repository, "list *")
    with pytest.raises(AssertionError, match=r"error: .*(grey;|touch)"):
        as_in_the_pod(tiny_repository, f"list grey; touch {tmp_path}/here")
    assert list(tmp_path.iterdir()) == []


def as_in_the_pod(repository: Path, words: str) -> str:
    """Runs the container's command, with python and the folder where they are here."""
    (container,) = pods("cpu")[REPOSITORY]["containers"]
    *shell, script = container["command"]
    assert PLACE in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert script.count(PLACE) == 1
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [*shell, script.replace(PLACE, str(repository))],
        env={"PATH": path, "COMMAND": words},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_command_that_the_pages_name_is_one(tmp_path: Path) -> None:
    """The parser takes it: what it asks for isn't there, which is no wrong usage."""
    text = "\n".join(path.read_text() for path in DOCS)
    named = set(re.findall(r"COMMAND='([^']+)'", text))
    named |= set(re.findall(r"^\| `'([^']+)'` \|", text, re.M))
    verbs = {words.split()[0] for words in named}
    assert verbs >= {"list", "verify", "promote", "rollback", "pin", "canary", "prune"}
    for words in named:
        assert main(["--repository", str(tmp_path), *words.split()]) in (0, 1, 3), words


def test_the_pages_lines_make_jobs_of_what_is_there() -> None:
    """Run for real, but for the cluster's part; and alerts know the trainings among them."""
    rules = (K8S / "components/monitoring/prometheus-rule.yaml").read_text()
    known = set(re.findall(r'kube_job_status_start_time\{job_name=~"([^"]+)"', rules))
    (pattern,) = known
    lines = shell_lines()
    assert len(lines) >= 4
    for line in lines:
        first, *rest = line.split(" | ")
        name, cron = re.fullmatch(
            r"kubectl create job (\S+) --from=cronjob/(\S+)(?: --dry-run=client -o yaml)?\s*", first
        ).groups()  # type: ignore[union-attr]
        if not rest:
            assert re.fullmatch(pattern, name), line
            assert cron == "saddlepoint-retrain"
            continue
        change, create = rest
        assert create.strip() == "kubectl create -f -"
        job = run(change, job_of(cron, name))
        kubernetes_validate.validate(without_nulls(job), kubernetes_validate.latest_version())
        (container,) = job["spec"]["template"]["spec"]["containers"]
        if cron == REPOSITORY:
            wanted = re.search("COMMAND='([^']+)'", change)
            assert wanted
            assert command_of(job["spec"]) == wanted[1].split()
        else:
            assert container["command"] == ["find"]
            assert not re.fullmatch(pattern, name)


def without_nulls(value: Any) -> Any:
    """Kubectl prints empty fields, which the schemas don't allow."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None and k != "status"}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def test_old_runs_are_found_by_age_and_nothing_else_is(tmp_path: Path) -> None:
    (line,) = (line for line in shell_lines() if "create job old-runs" in line)
    job = run(line.split(" | ")[1], job_of("saddlepoint-retrain", "old-runs"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    runs = parse_training(cron_args()).options.runs
    assert container["args"][0] == str(runs)
    for name, age_days in (("00001-digits", 90), ("00002-digits", 3), ("lost+found", 90)):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        then = (tmp_path / name).stat().st_mtime - age_days * 86400
        os.utime(tmp_path / name, (then, then))
    command = [*container["command"], str(tmp_path), *container["args"][1:]]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert {path.name for path in tmp_path.iterdir()} == {"00002-digits", "lost+found"}


def cron_args() -> list[str]:
    (container,) = pods("cpu")["saddlepoint-retrain"]["containers"]
    return list(container["args"])


def test_the_page_s_lines_make_links_of_the_runbook_s_paths(tmp_path: Path) -> None:
    text = (ROOT / "docs/deployment.md").read_text()
    (block,) = re.findall(r"```yaml\n(configMapGenerator:.*?)```", text, re.S)
    overlay = {"resources": ["../cpu"], **yaml.safe_load(block)}
    shutil.copytree(K8S, tmp_path / "k8s")
    folder = tmp_path / "k8s/overlays/mine"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(json.dumps(overlay))
    found = list(yaml.safe_load_all(kustomize(folder)))
    (rule,) = (m for m in found if m["kind"] == "PrometheusRule")
    alerts = [r for group in rule["spec"]["groups"] for r in group["rules"] if "alert" in r]
    for alert in alerts:
        url = f"https://git.example.com/saddlepoint/docs/runbook.md#{alert['alert'].lower()}"
        assert alert["annotations"]["runbook_url"] == url
