"""The page is whole, small and asks nobody, whatever a run's folder holds."""

import json
import math
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.training.report.planted import PLANTED, course, plant, results
from training.cli.command import Command, parse
from training.errors import ConfigError, UnsavedError
from training.recipes import RECIPES
from training.report.__main__ import main
from training.report.again import PROG, command_of
from training.report.history import History, thinned
from training.report.writer import MOST_BYTES, NAME, document, write, write_at_end
from training.runs.catalogue import Run, labels_of


class Reader(HTMLParser):
    """Keeps what a page says, and where it would load something from."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.sources, self.scripts = "", [], {}  # type: ignore[var-annotated]
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.sources += [named[n] for n in ("src", "href", "srcset", "data") if named.get(n)]
        self._script = named.get("id") or "" if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data
        elif self._script is None:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    @property
    def charts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.scripts["charts"])
        return found


def checked(text: str) -> Reader:
    """Reads a page, which must be small and whole."""
    assert len(text.encode()) < MOST_BYTES
    reader = Reader(text)
    assert all(source.startswith("data:image/webp;base64,") for source in reader.sources)
    for chart in reader.charts:
        assert chart["title"]
        assert chart["read"]
        assert all(len(each["y"]) == len(chart["x"]) for each in chart["series"])
    return reader


def test_it_has_the_verdict_first_and_everything_of_the_run(tmp_path: Path) -> None:
    folder = plant(
        tmp_path / "00000-digits",
        course(),
        watchdog={"alarms": [{"failure": "collapse", "cur_nimg": 9000, "says": "at <9> kimg"}]},
    )
    results(folder)
    neighbours = np.zeros((20, 60), np.uint8)
    Image.fromarray(neighbours).save(folder / "samples" / "neighbours.png")
    page = checked(document([Run(folder)]))
    assert page.text.index("Still improving") < page.text.index("kimg")
    for part in ("Nearest real images", "Eigenvalues of one round", "Events of the watchdog",
                 "at <9> kimg", "To make it again", "network.ngf"):  # fmt: skip
        assert part in page.text
    titles = [chart["title"] for chart in page.charts]
    for title in ("Distance from the real images", "Loss of D by its terms",
                  "Raw scores of D",
                  "Gradient norms", "Damping over the weight of r1", "How fast twins part",
                  "Angle of the field on the way from start"):  # fmt: skip
        assert title in titles
    frames = json.loads(page.scripts["frames0"])
    assert [frame["kimg"] for frame in frames] == [0, 10, 20]
    distance = page.charts[0]
    assert [each["label"] for each in distance["series"]] == [
        "frechet_distance", "frechet_distance, real images", "frechet_distance, noise",
    ]  # fmt: skip
    assert distance["events"] == [[9.0, "collapse"]]


def test_several_runs_stand_side_by_side(tmp_path: Path) -> None:
    folders = [
        plant(tmp_path / f"0000{i}-digits", PLANTED[state][0], batch_size=32 * (i + 1))
        for i, state in enumerate(("improving", "collapse"))
    ]
    page = checked(document([Run(folder) for folder in folders]))
    assert "Still improving" in page.text
    assert "Collapsed" in page.text
    assert page.text.index("Options that differ") < page.text.index("Samples")
    side_by_side = page.charts[0]
    assert [each["label"] for each in side_by_side["series"]] == ["00000-digits", "00001-digits"]
    # Ten with a hundred thousand points each are fewer points a run, and still small.
    checked(document([Run(folder) for folder in folders * 5]))


def test_a_long_run_keeps_its_peaks_and_its_size(tmp_path: Path) -> None:
    lines = [
        {"tick": i, "cur_nimg": i * 10, "loss_D.adversarial": 5.0 if i == 61_803 else i % 7 / 10}
        for i in range(1, 100_001)
    ]
    folder = plant(tmp_path / "run", lines)
    page = checked(document([Run(folder)]))
    (chart,) = page.charts
    assert len(chart["x"]) < 1000
    assert 5.0 in chart["series"][0]["y"]


def test_thinning_leaves_both_extremes_of_every_stretch() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(5000).tolist()
    x, (column,) = thinned(list(range(5000)), [values], 100)
    assert len(x) == len(column) <= 100
    assert max(column) == max(values)  # type: ignore[type-var]
    assert min(column) == min(values)  # type: ignore[type-var]
    assert x == sorted(x)


_NUMBERS = (
    st.floats(allow_nan=True, allow_infinity=True)
    | st.integers(-(10**12), 10**12)
    | st.just(10**400)
)
_VALUES = (
    _NUMBERS | st.none() | st.text(max_size=5) | st.booleans() | st.lists(_NUMBERS, max_size=2)
)
_NAMES = st.sampled_from(
    [*course()[0], "augment_p", "path_length", "stability.radius", "</script>", "tick"]
)
_LINES = st.lists(st.dictionaries(_NAMES, _VALUES), max_size=12)
_FILES = st.binary(max_size=60) | _LINES.map(
    lambda lines: "\n".join(map(json.dumps, lines)).encode()
)
_ENTRY = st.dictionaries(
    st.sampled_from(["cur_nimg", "failure", "says", "to_nimg", "remedy", "change"]), _VALUES
)
_WATCHDOG = st.binary(max_size=20) | st.dictionaries(
    st.sampled_from(["alarms", "rescues", "state"]), _VALUES | st.lists(_ENTRY, max_size=2)
).map(lambda content: json.dumps(content).encode())
_RESULT = st.sampled_from(
    [
        "advice",
        "a",
        "batches",
        "block",
        "blocks",
        "border",
        "cosine",
        "cur_nimg",
        "damping_ratio",
        "exact",
        "exponent",
        "flow",
        "lambda",
        "limits",
        "modes",
        "penalties",
        "point",
        "r1",
        "region",
        "round",
        "rule",
        "says",
        "since",
        "slope",
        "solved",
        "speed",
        "step_limit",
        "values",
        "verdict",
        "weight",
    ]
)
_RECORD = st.recursive(
    _VALUES,
    lambda inner: st.dictionaries(_RESULT, inner) | st.lists(inner, max_size=3),
    max_leaves=8,
)
_OPTIONS = st.dictionaries(
    st.sampled_from(["total_kimg", "recipe", "regularizers", "seed", "watchdog", "data"]),
    _VALUES | st.dictionaries(st.sampled_from(["ignore", "path", "dataset"]), _VALUES),
)


@settings(
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(metrics=_FILES, watchdog=_WATCHDOG, record=_RECORD, options=_OPTIONS)
def test_any_files_give_a_report(
    tmp_path_factory: pytest.TempPathFactory,
    metrics: bytes,
    watchdog: bytes,
    record: Any,
    options: dict[str, Any],
) -> None:
    folder = plant(tmp_path_factory.mktemp("any") / "run", [], outcome=None, num_grids=0)
    config = json.loads((folder / "config.json").read_text())
    config["training"] |= options
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_bytes(metrics)
    (folder / "watchdog.json").write_bytes(watchdog)
    (folder / "samples" / "samples-000001.png").write_bytes(watchdog)
    (folder / "stability").mkdir()
    for name in ("spectrum", "gamma", "path", "exponent"):
        content = {**(record if isinstance(record, dict) else {"a": record}), "command": name}
        (folder / "stability" / f"{name}-1.json").write_text(json.dumps(content))
    checked(document([Run(folder)]))


def test_runs_of_the_same_name_are_told_apart_everywhere(tmp_path: Path) -> None:
    runs = [
        Run(plant(tmp_path / where / "00000-digits", course(**{"loss_D.adversarial": value})))
        for where, value in (("A", 1.0), ("B", 2.0), ("B/deep", 3.0))
    ]
    runs.append(Run(plant(tmp_path / "A" / "00001-digits", course(), seed=7)))
    names = ["A/00000-digits", "B/00000-digits", "deep/00000-digits", "00001-digits"]
    assert labels_of(runs) == names
    text = document(runs)
    checked(text)
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    (compared,) = [c for c in charts if c["title"] == "loss_D.adversarial"]
    assert [each["label"] for each in compared["series"]] == names
    for name in names:  # in the table of verdicts, of options and of ends, and as a heading
        assert text.count(f'<th scope="col">{name}</th>') == 1
        assert text.count(f"<td>{name}</td>") > 1
        assert f"<summary>{name}</summary>" in text


def test_the_same_run_twice_has_two_names(tmp_path: Path) -> None:
    run = Run(plant(tmp_path / "run", course()))
    first, second = labels_of([run, run])
    assert first != second


def test_one_row_is_enough(tmp_path: Path) -> None:
    page = checked(document([Run(plant(tmp_path / "run", course()[:1]))]))
    assert "Too early to tell" in page.text


def test_a_run_of_an_earlier_release_has_a_report() -> None:
    page = checked(document([Run(Path("tests/legacy/run"))]))
    # With what its options meant then.
    assert "--data.background white" in page.text
    assert "config.json in the run's folder counts" not in page.text


def test_a_run_of_an_unknown_recipe_is_told_apart(tmp_path: Path) -> None:
    folder = plant(tmp_path / "run", course())
    config = json.loads((folder / "config.json").read_text())
    config["training"]["recipe"] = "another"
    (folder / "config.json").write_text(json.dumps(config))
    assert "config.json in the run's folder counts" in checked(document([Run(folder)])).text


@pytest.mark.parametrize(
    "name", ["article", "digits", "folder", "style", "wgan", "consensus", "anomaly"]
)
def test_the_command_makes_the_run_again(tmp_path: Path, name: str) -> None:
    """Also with options of every kind changed."""
    words = [name, "--seed", "7", "--total-kimg", "12.5"]
    if RECIPES[name].config.data.conditional:
        words.append("--data.no-conditional")
    if name == "anomaly":
        words += ["--data.only", "3"]
    if name == "folder":
        words += ["--data.path", str(tmp_path), "--schedules", "optim_G.lr=0@5:cosine"]
    if name == "article":
        words += ["--regularizers", "r1=0.3/4", "r2=1", "--network", "dcgan", "--network.ngf", "8"]
    config = parse(words).config
    (tmp_path / "config.json").write_text(Command(config=config).to_json())
    command, is_exact = command_of(Run(tmp_path))
    assert is_exact
    found = shlex.split(command.removeprefix(PROG))
    assert parse(found).config == config


def test_it_is_written_as_a_whole_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = plant(tmp_path / "runs" / "00000-digits", course())
    runs = ["--runs", str(tmp_path / "runs")]
    assert main(["0", *runs]) == 0
    path = folder / NAME
    assert capsys.readouterr().out.strip() == str(path)
    assert main(["0", str(folder), *runs, "--out", str(tmp_path / "page.html")]) == 0
    # The same run twice is one run.
    assert (tmp_path / "page.html").read_text() == path.read_text()
    assert main(["7", *runs]) == ConfigError.exit_code
    assert "RUN is '7', allowed" in capsys.readouterr().err
    nowhere = str(tmp_path / "nowhere" / "page.html")
    assert main(["0", *runs, "--out", nowhere]) == UnsavedError.exit_code
    assert "set --out" in capsys.readouterr().err


def test_at_the_end_of_a_run_nothing_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    folder = plant(tmp_path / "run", course())
    write_at_end(folder, said.append)
    assert said == [f"The report: {folder / NAME}"]
    write_at_end(tmp_path / "missing", said.append)
    assert said[-1].startswith("warning: no report: ")
    # A full disk leaves the old page.
    before = (folder / NAME).read_text()

    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.report.writer.write_synced", full)
    with pytest.raises(UnsavedError, match="No space left"):
        write([Run(folder)], folder / NAME)
    assert (folder / NAME).read_text() == before
    assert not list(folder.glob(".*"))


def test_the_history_takes_the_last_of_two_lines() -> None:
    found = History.of([{"cur_nimg": 2000, "a": 1.0}, {"cur_nimg": 1000, "a": math.nan},
                        {"cur_nimg": 2000, "a": 3.0}])  # fmt: skip
    assert found.kimg == [1.0, 2.0]
    assert found.columns["a"] == [None, 3.0]
    assert found.broken == {}
