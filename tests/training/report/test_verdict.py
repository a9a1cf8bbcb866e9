"""Each planted course has its verdict, with what shows it and what to change."""

import json
import shlex
from pathlib import Path

import pytest

from tests.training.report.planted import PLANTED, course, plant, results, settled
from training.report.history import History
from training.report.stability_results import results_of
from training.report.verdict import STATES, Verdict, events_of, verdict_of
from training.report.writer import document
from training.runs.catalogue import Run
from training.watchdog.detectors import DETECTORS


def judged(folder: Path) -> Verdict:
    run = Run(folder)
    return verdict_of(run, History.of(run.metrics), results_of(folder))


@pytest.mark.parametrize("state", PLANTED)
def test_a_planted_course_has_its_verdict(tmp_path: Path, state: str) -> None:
    lines, options = PLANTED[state]
    found = judged(plant(tmp_path / "00000-digits", lines, **options))
    assert found.state == state.split()[0]
    assert found.sentence.startswith(STATES[found.state])
    assert found.advice


def test_every_failure_has_a_head() -> None:
    assert set(DETECTORS) < set(STATES)


def test_the_figures_stand_in_the_sentence(tmp_path: Path) -> None:
    sentence = judged(plant(tmp_path / "run", course())).sentence
    assert "fell by 53%, from 0.9797 at 29 kimg" in sentence
    assert "% of the way from noise to real images" in sentence


@pytest.mark.parametrize("state", ["past", "improving", "divergence"])
def test_commands_can_be_pasted_whatever_the_folders_name(tmp_path: Path, state: str) -> None:
    lines, options = PLANTED[state]
    folder = plant(tmp_path / "my runs; $HOME" / "00000-digits", lines, **options)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "checkpoint-0000004000.pt").write_bytes(b"")
    advice = [line for line in judged(folder).advice if str(folder) in line]
    assert advice
    quoted = shlex.quote(str(folder))
    assert all(str(folder) not in f" {line}".replace(f" {quoted} ", "") for line in advice), advice


def test_signs_of_a_failure_do_not_overrule_images_that_improve(tmp_path: Path) -> None:
    lines = [{**line, "watch.r_t": 1.0} for line in course()]
    found = judged(plant(tmp_path / "run", lines))
    assert found.state == "improving"
    assert "A sign of overfitting" in found.evidence[0]
    assert found.sentence.startswith("Still improving, with signs of overfitting: the Frechet")


@pytest.mark.parametrize("ignored", [(), ("oscillation",)])
def test_what_the_run_ignores_is_ignored(tmp_path: Path, ignored: tuple[str, ...]) -> None:
    folder = plant(tmp_path / "run", PLANTED["oscillation"][0])
    config = json.loads((folder / "config.json").read_text())
    config["training"]["watchdog"]["ignore"] = ignored
    (folder / "config.json").write_text(json.dumps(config))
    assert judged(folder).state == ("settled" if ignored else "oscillation")


def test_numbers_that_are_not_finite_at_the_end_are_a_divergence(tmp_path: Path) -> None:
    lines = settled()
    for line in lines[-3:]:
        line["loss_D.adversarial"] = float("nan")
    found = judged(plant(tmp_path / "run", lines))
    assert found.state == "divergence"
    assert "loss_D.adversarial is not finite from 38 kimg on" in found.sentence
    lines[-1]["loss_D.adversarial"] = 1.0  # it came back
    assert judged(plant(tmp_path / "other", lines)).state == "settled"


def test_an_alarm_that_is_gone_is_remembered(tmp_path: Path) -> None:
    content = {
        "alarms": [{"failure": "collapse", "cur_nimg": 9000, "says": "collapse at 9 kimg"}],
        "rescues": [{"failure": "collapse", "cur_nimg": 9500, "to_nimg": 7000,
                     "remedy": "raise-gamma", "change": "r1=1 -> r1=10"}],
    }  # fmt: skip
    found = judged(plant(tmp_path / "run", course(), watchdog=content))
    assert "The watchdog saw collapse at 9 kimg; it is gone at the end." in found.evidence


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "null", '"9"'])
def test_events_whose_place_is_no_number_are_left_out(tmp_path: Path, number: str) -> None:
    folder = plant(tmp_path / "run", course(), watchdog={})
    alarm = f'{{"failure": "collapse", "cur_nimg": {number}, "says": "collapse"}}'
    rescue = f'{{"failure": "collapse", "cur_nimg": 9000, "to_nimg": {number}}}'
    text = f'{{"alarms": [{alarm}], "rescues": [{alarm}, {rescue}]}}'
    (folder / "watchdog.json").write_text(text)
    (event,) = events_of(Run(folder))
    assert (event["kimg"], event["text"][:24]) == (9.0, "collapse: back to 0 kimg")
    assert "collapse: back to 0 kimg" in document([Run(folder)])


def test_what_the_instrument_said_is_evidence(tmp_path: Path) -> None:
    folder = plant(tmp_path / "run", course())
    results(folder)
    (folder / "stability" / "broken-0000000001.json").write_text("{")
    told = judged(folder).evidence
    assert "stability exponent, at 40 kimg: Twins meet." in told
