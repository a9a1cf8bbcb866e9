"""The command `saddlepoint`, installed from a wheel as a user has it."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path
from shutil import copyfile, copytree, ignore_patterns

import pytest

import saddlepoint
from tests.conftest import server_process

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "training", "serving")
TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4"]
DECOY = """
from pathlib import Path
(Path(__file__).parent / "was-imported").touch()
raise ImportError("the folder's own package, not Saddlepoint's")
"""


def run(*command: str | Path, cwd: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    """A command without this process's own Python settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=kept | environ
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing of it stays among the sources."""
    sources, folder = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        copytree(ROOT / name, sources / name, ignore=ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "saddlepoint.py"):
        copyfile(ROOT / name, sources / name)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = run(sys.executable, "-c", build, folder, cwd=sources)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def environment(folder: Path, wheel: Path) -> Path:
    """A virtual environment that holds the wheel alone; gives its bin folder."""
    venv.create(folder, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install"]
    done = run(*pip, "--quiet", "--no-index", "--no-deps", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command where nothing else is installed."""
    return environment(tmp_path_factory.mktemp("bare"), wheel) / "saddlepoint"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command where what it needs is installed, as it is for this process."""
    folder = tmp_path_factory.mktemp("installed")
    command = environment(folder, wheel) / "saddlepoint"
    # The folder alone, without the .pth files in it: an editable install would be found by those.
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return command


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with packages of the same names, as many repositories of GANs have them."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(DECOY)
    return tmp_path


def imported(project: Path) -> list[Path]:
    return list(project.glob("*/was-imported"))


def test_the_wheel_holds_what_a_user_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    web = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "serving" / "web").rglob("*")
        if path.is_file()
    }
    typed = {f"{name}/py.typed" for name in PACKAGES}
    assert names >= {"saddlepoint.py", "serving/web/index.html"} | web | typed
    sources = {
        str(path.relative_to(ROOT)) for name in PACKAGES for path in (ROOT / name).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == sources | {"saddlepoint.py"}
    assert "License-Expression: Apache-2.0" in metadata
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.e2e
def test_a_project_with_packages_of_the_same_names_trains_and_serves(
    installed: Path, project: Path
) -> None:
    python = installed.with_name("python")
    assert run(python, "-m", "training.run", "--list", cwd=project).returncode != 0
    assert imported(project), "the decoys hide nothing"
    for path in imported(project):
        path.unlink()

    short = ["--batch-size", "16", "--total-kimg", "0.032", "--evaluation", "none"]
    done = run(installed, "train", "digits", *TINY, *short, cwd=project, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    # PYTHONPATH puts the project before everything else: still ours are found.
    listing = run(installed, "models", "list", "--json", cwd=project, PYTHONPATH=str(project))
    assert listing.returncode == 0, listing.stderr
    (model,) = json.loads(listing.stdout)["models"]
    assert (model["model"], model["current"]) == ("digits", 1)

    flags = ("--workers-per-device", "2", "--compute-threads", "1")
    command = (str(installed), "serve")
    repository = project / "model-repository"
    with server_process(repository, project, *flags, command=command, cwd=project) as server:
        words = ["--url", server.url, "generate", "--seeds", "1-4", "--labels", "7"]
        client = run(installed, "client", *words, "--out", project / "images", cwd=project)
        assert client.returncode == 0, client.stdout + client.stderr
        assert server.stop() == 0
    assert len(list((project / "images").glob("*.png"))) == 4
    assert not imported(project)


def test_the_working_directory_hides_nothing_from_python_m(installed: Path, project: Path) -> None:
    python = installed.with_name("python")
    done = run(python, "-m", "saddlepoint", "keys", "list", "absent", cwd=project)
    assert done.returncode == 2
    assert f"--api-keys is {project / 'absent'}" in done.stderr
    assert not imported(project)


def test_a_part_that_is_not_installed_is_named(bare: Path, tmp_path: Path) -> None:
    for command, package, extra in (
        ("train", "torch", "'.[train]'"),
        ("evaluate", "torch", "'.[train]'"),
        ("serve", "litserve", "'.[serve]'"),
        ("client", "httpx", "'.[client]'"),
        ("models", "msgspec", "'.[models]'"),
    ):
        done = run(bare, command, "--help", cwd=tmp_path)
        assert done.returncode == 2, command
        assert f"saddlepoint {command} needs" in done.stderr
        assert package in done.stderr
        assert done.stderr.rstrip().endswith(extra)
        assert len(done.stderr.splitlines()) == 1


def test_help_and_version_need_nothing(bare: Path, tmp_path: Path) -> None:
    done = run(bare, "--help", cwd=tmp_path)
    assert done.returncode == 0
    sentences = dict(re.findall(r"^  (\w+) +(.+)$", done.stdout, re.M))
    assert list(sentences) == list(saddlepoint.COMMANDS)
    assert all(text.endswith(".") and text.count(" ") > 3 for text in sentences.values())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(bare, "--version", cwd=tmp_path).stdout == f"saddlepoint {version}\n"


def test_help_imports_nothing_heavy() -> None:
    code = "import saddlepoint, sys; saddlepoint.main(['--help']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"numpy", "torch", "msgspec", "argparse", *PACKAGES}


@pytest.mark.parametrize("name", saddlepoint.COMMANDS)
def test_usage_says_how_it_was_called(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = saddlepoint.main([name, "--help"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    assert code == 0
    usage = capsys.readouterr().out
    assert usage.startswith(f"usage: saddlepoint {name} ")
    assert f"python -m {saddlepoint.COMMANDS[name].module.removesuffix('.__main__')}" not in usage


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "COMMAND is 'trian', allowed: train, evaluate, .*; the nearest is train$"),
        (["xyz"], "COMMAND is 'xyz', allowed: train, .*; saddlepoint --help explains them$"),
        ([], "^usage: saddlepoint COMMAND"),
    ],
)
def test_an_unknown_command_ends_with_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert saddlepoint.main(words) == 2
    assert re.search(said, capsys.readouterr().err)


def test_an_image_without_a_part_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the serving image, which has no folder training."""
    absent = saddlepoint.Command("training_absent.run", None, "")
    monkeypatch.setitem(saddlepoint.COMMANDS, "train", absent)
    assert saddlepoint.main(["train"]) == 2
    assert "saddlepoint train needs training_absent" in capsys.readouterr().err


def test_exit_codes_are_the_programs_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert saddlepoint.main(["train", "nonsense"]) == 2
    assert "RECIPE is 'nonsense'" in capsys.readouterr().err
    assert saddlepoint.main(["models", "--repository", "/absent", "list"]) == 1
    assert "/absent" in capsys.readouterr().err
