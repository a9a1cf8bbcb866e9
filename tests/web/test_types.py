"""The scripts of playground and lab under TypeScript, which reads the types in their comments."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "serving" / "web" / "playground", ROOT / "training" / "lab" / "web")
COMPILER = ROOT / ".build" / "checkers" / "node_modules" / ".bin" / "tsc"


def test_types_fit() -> None:
    if not COMPILER.exists():
        if os.environ.get("REQUIRE_CHECKERS") and shutil.which("npm"):
            pytest.fail("TypeScript is missing: make checkers")
        pytest.skip("TypeScript is missing: make checkers, with npm")
    config = Path(__file__).with_name("tsconfig.json")
    checked = subprocess.run(
        [COMPILER, "-p", str(config)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_scripts_load_each_other_by_relative_paths_that_exist(folder: Path) -> None:
    """And nothing else: the policy would refuse it."""
    scripts = list(folder.glob("**/*.js"))
    assert len(scripts) > 8
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400, script
        for name in re.findall(r'^import .*? from "(.*?)";$', text, re.M):
            assert (script.parent / name).is_file(), f"{script}: {name}"
        assert not re.search(r"https?://|innerHTML|eval\(|localStorage|sessionStorage", text), (
            script
        )
