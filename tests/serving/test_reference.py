"""The pages that are made of the code are what it makes."""

import subprocess
import sys
from pathlib import Path

import pytest

from serving.errors import Problem, problems
from serving.reference import PAGES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_as_the_code_makes_it(name: str) -> None:
    written = (DOCS / name).read_text() if (DOCS / name).exists() else ""
    assert written == PAGES[name](), f"docs/{name} is old: python -m serving.reference docs"


def test_the_command_writes_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serving.reference"]
    subprocess.run([*command, str(tmp_path)], check=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        name: page() for name, page in PAGES.items()
    }
    assert (
        subprocess.run([*command, str(tmp_path / "nowhere")], capture_output=True).returncode == 2
    )


def test_every_problem_is_one_of_its_own_and_says_what_helps() -> None:
    kinds = problems()
    assert len(kinds) > 10
    assert len({kind.slug for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert 400 <= kind.status < 600, kind
        for own in ("status", "slug", "title", "remedy", "__doc__"):
            assert kind is Problem or own in vars(kind), f"{kind.__name__} needs its own {own}"
