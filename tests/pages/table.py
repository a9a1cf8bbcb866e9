"""What a reader does beside the commands of a page, and which commands are not run, with reasons.

A rule is for the commands of a page that its pattern (a regular expression) is found in; the first
one that fits counts. `test_pages.py` fails where a rule fits nothing any more.
"""

import re
from dataclasses import dataclass
from typing import Literal

from tests.pages.reading import Statement

Terminal = Literal["here", "another", "none", "stopped"]


@dataclass(frozen=True)
class Rule:
    """How a command of a page is run."""

    page: str
    pattern: str
    why: str
    terminal: Terminal = "none"
    """here; in another one, until the server is ready; none: not at all; stopped: with Ctrl-C."""
    codes: tuple[int, ...] = (0,)
    """Exit codes that the page allows."""
    replaced: tuple[tuple[str, str], ...] = ()
    """Texts in the command, and what the test has in their place."""
    until: str = ""
    """Of one that is stopped: when its output holds this."""

    def fits(self, statement: Statement) -> bool:
        """Whether it is about this command."""
        return self.page == statement.page and bool(re.search(self.pattern, statement.code))


@dataclass(frozen=True)
class Page:
    """A page that a reader works through from top to bottom."""

    name: str
    before: tuple[str, ...] = ()
    """What its reader has done before: commands, run in the same terminal."""
    serves: bool = True
    """Whether `make serve` runs in another terminal."""
    fresh: bool = False
    """Whether nothing was trained in the clone before."""
    shows: bool = False
    """Whether the output that it shows is compared."""


SERVES = re.compile(r"^make serve\b|saddlepoint serve$|serving\.run --repository", re.M)
"""Commands that run in another terminal, whichever page they are on."""

GATE_FAILED = 8
FILES = ".venv/bin/python examples/digit_files.py photos"
DIRECTIONS = ".venv/bin/saddlepoint inside directions digits --num 4 --publish"
"""A training of its whole length ends with it."""
PICTURES = """
.venv/bin/python examples/digit_files.py photos
cp photos/3/0003.png photo.png; cp photo.png photo1.png; cp photos/4/0004.png photo2.png
.venv/bin/python - <<'END'
from PIL import Image

photo = Image.open("photo.png")
photo.resize((8, 8)).save("small.png")
photo.putalpha(Image.new("L", photo.size, 255))
photo.paste((0, 0), (8, 8, 16, 16))
photo.save("holes.png")
END
"""
"""Images of a reader's own."""
PAGES = (
    Page("README.md", before=(FILES,), serves=False),
    Page("docs/tutorial.md", serves=False, fresh=True, shows=True),
    Page("docs/using-the-api.md", before=(DIRECTIONS,)),
    Page("docs/versions.md"),
    Page("docs/inside.md"),
    Page("docs/inversion.md", before=(PICTURES, DIRECTIONS), serves=False),
    Page("docs/evaluation.md", serves=False),
    Page("docs/bulk.md", serves=False),
    Page("docs/operating.md", serves=False),
    Page("docs/serving.md", serves=False),
    Page("docs/lab.md", serves=False),
)

ELSEWHERE = {
    "docs/api.md": "tests/web/test_api_examples.py runs every block",
    "docs/coverage.md": "trainings and benchmarks, hours long",
    "docs/data.md": "examples for images that only a reader has; tests/test_readme.py parses them",
    "docs/deployment.md": "needs a cluster, or builds images: tests/k8s, tests/containers",
    "docs/playground.md": "a benchmark, which needs a browser",
    "docs/scaling.md": "a benchmark, minutes long",
    "docs/stability.md": "instruments, minutes long; tests/training/stability is about each",
    "docs/training-metrics.md": "a fixed port; tests/training/runs/prometheus has one that is free",
    "docs/training.md": "hours of trainings by way of example; tests/test_readme.py parses them",
    "docs/watchdog.md": "trainings and benchmarks of minutes; tests/test_readme.py parses them",
    "docs/zoo.md": "a benchmark, a quarter of an hour long",
}
"""Pages whose commands are not run here, and why."""

RULES: tuple[Rule, ...] = (
    Rule("README.md", r"^make (test|lint|image-test|bench)\b", "what CI runs"),
    Rule("README.md", "saddlepoint evaluate", "docs/evaluation.md begins with it"),
    Rule(
        "README.md",
        "train folder",
        "64 pixels take a minute",
        terminal="here",
        replaced=(("--data.path photos", "--data.path photos --data.resolution 16"),),
    ),
    Rule(
        "docs/tutorial.md",
        "--augment.policy diffaugment",
        "the page says to stop it after a minute",
        terminal="stopped",
        until="images/s",
    ),
    Rule(
        "docs/tutorial.md",
        "data audit",
        "it finds something",
        terminal="here",
        codes=(1,),
    ),
    Rule(
        "docs/tutorial.md",
        "--gate not-worse",
        "after a thousandth of both trainings either may be worse",
        terminal="here",
        replaced=(("--gate not-worse", "--gate not-worse:frechet_distance:100"),),
    ),
    Rule(
        "docs/evaluation.md",
        "--gate",
        "after a thousandth of a training it passes no gate",
        terminal="here",
        codes=(0, GATE_FAILED),
    ),
    Rule(
        "docs/lab.md",
        "saddlepoint lab",
        "it plays until it is stopped; its port may be taken by another test",
        terminal="stopped",
        replaced=(("lab", "lab --port 0"),),
        until="http://",
    ),
    Rule("docs/lab.md", r"lessons\.py", "ten minutes; tests/training/lab plays two lessons"),
    Rule("docs/inversion.md", "package", "it needs MNIST; tests/training/anomaly has small images"),
    Rule("docs/inside.md", r"training\.run digits ", "`make serve` has trained it"),
    Rule("docs/inside.md", "units runs/", "40 s; tests/training/interpretation measures tiny ones"),
    Rule(
        "docs/inside.md",
        "--masks eyes.npz",
        "masks that only a reader has",
        terminal="here",
        replaced=(("--masks eyes.npz ", ""),),
    ),
    Rule("docs/inversion.md", r"training\.run digits$", "`make serve` has trained it"),
    Rule("docs/inversion.md", "benchmarks/", "minutes; they print the figures of the page"),
    Rule("docs/bulk.md", "--ray auto", "needs a cluster"),
    Rule("docs/operating.md", "s3://", "needs a bucket"),
    Rule(
        "docs/bulk.md",
        "--seeds 0-999999",
        "a million images take minutes",
        terminal="here",
        replaced=(("0-999999", "0-1999"),),
    ),
)
