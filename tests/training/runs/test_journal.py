import io
import json
import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.runs.journal import Journal, duration

MEANS = {"loss_D.adversarial": 1.25, "loss_D.r1": 0.5, "loss_G.adversarial": 0.75}
SCORES = {"scores.real": 1.5, "scores.fake": -20.25}
MEANS |= {"D_real": 0.625, "D_fake": 0.375, **SCORES}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def make(folder: Path, stream: io.StringIO, cur_nimg: int = 0) -> Journal:
    return Journal(folder, stream, cur_nimg=cur_nimg, total_nimg=10_000)


def records(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_tick_is_a_line_a_record_and_events(tmp_path: Path) -> None:
    stream = io.StringIO()
    journal = make(tmp_path, stream)
    journal.tick(1, 2500, MEANS)
    journal.close()
    line = stream.getvalue()
    for part in ("kimg 2.5/10.0", "images/s", "D 1.750 G 0.750", "D(real) 0.62", "left"):
        assert part in line
    (record,) = records(tmp_path)
    assert {name: record[name] for name in MEANS} == MEANS
    assert (record["tick"], record["cur_nimg"]) == (1, 2500)
    assert record["nimg_per_s"] > 0
    assert line.strip() in (tmp_path / "log.txt").read_text()
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    (event,) = events.Scalars("loss_D/r1")
    assert (event.step, event.value) == (2500, 0.5)


def test_a_critics_line_has_its_scores_and_no_probability(tmp_path: Path) -> None:
    stream = io.StringIO()
    journal = make(tmp_path, stream)
    journal.tick(1, 2500, {"loss_D.adversarial": 1.0, "loss_G.adversarial": 1.0, **SCORES})
    journal.close()
    assert "score real 1.5 fake -20.2" in stream.getvalue()
    assert "D(real)" not in stream.getvalue()
    (record,) = records(tmp_path)
    assert (record["scores.real"], record["scores.fake"]) == (1.5, -20.25)
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert events.Scalars("scores/fake")[0].value == -20.25


def test_a_resumed_run_writes_over_what_was_lost(tmp_path: Path) -> None:
    journal = make(tmp_path, io.StringIO())
    for tick in (1, 2, 3):
        journal.tick(tick, tick * 1000, MEANS)
    journal.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"tick": 4, "cur_n')  # killed while it wrote
    journal = make(tmp_path, io.StringIO(), cur_nimg=2000)
    journal.tick(3, 3000, MEANS)
    journal.close()
    assert [record["tick"] for record in records(tmp_path)] == [1, 2, 3]


def test_elsewhere_a_minute_without_a_line_gets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("training.runs.journal.time.monotonic", lambda: now)
    stream = io.StringIO()
    journal = make(tmp_path, stream)
    assert not journal.refresh_is_due()
    now += 60
    assert journal.refresh_is_due()
    journal.refresh(100, MEANS)
    assert not journal.refresh_is_due()
    now += 59
    journal.tick(1, 2500, MEANS)
    now += 59
    assert not journal.refresh_is_due()
    now += 1
    assert journal.refresh_is_due()
    journal.close()
    shown = stream.getvalue().splitlines()
    assert [line[:13] for line in shown] == ["kimg 0.1/10.0", "kimg 2.5/10.0"]
    assert not any("\r" in line for line in shown)
    assert (tmp_path / "log.txt").read_text().count("kimg 0.1/10.0") == 1


def test_on_a_terminal_one_line_is_rewritten(tmp_path: Path) -> None:
    terminal = Terminal()
    journal = make(tmp_path, terminal)
    assert journal.refresh_is_due()
    journal.refresh(100, MEANS)
    assert not journal.refresh_is_due()
    shown = terminal.getvalue()
    assert "\n" not in shown
    journal.say("done")
    assert terminal.getvalue().endswith("\r" + " " * len(shown) + "\rdone\n")
    journal.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (42.4, "42s"), (185, "3m05s"), (7620, "2h07m"), (math.inf, "?")],
)
def test_durations_read_as_people_write_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
