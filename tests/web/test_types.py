"""The playground's scripts under TypeScript, which reads the types in their comments."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "serving" / "web" / "playground"


def test_types_fit() -> None:
    compiler = shutil.which("tsc")
    if compiler is None:
        pytest.skip("tsc is missing: npm install --global typescript")
    config = Path(__file__).with_name("tsconfig.json")
    checked = subprocess.run(
        [compiler, "-p", str(config)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_scripts_load_each_other_by_relative_paths_that_exist() -> None:
    """And nothing else: the policy would refuse it."""
    scripts = list(SCRIPTS.glob("**/*.js"))
    assert len(scripts) > 15
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400, script
        for name in re.findall(r'^import .*? from "(.*?)";$', text, re.M):
            assert (script.parent / name).is_file(), f"{script}: {name}"
        assert not re.search(r"https?://|innerHTML|eval\(|localStorage|sessionStorage", text), (
            script
        )
