"""Eigenvalues by products against dense ones, step limits tried, and the command on a run."""

import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.stability.conftest import MakeRun, tiny_config
from training.engine.checkpoint import Checkpoints
from training.engine.state import PlayerState
from training.errors import CheckpointError, ConfigError, StabilityError
from training.game.regularizers import Term
from training.optim.optimizers import OptimizerConfig
from training.stability import memory
from training.stability.__main__ import main
from training.stability.analysis import Analysis, BatchSpectrum, StepLimit, step_limit
from training.stability.closed_form.gauge import operator, round_eigenvalues
from training.stability.closed_form.toy_games import dirac
from training.stability.commands.spectrum import verdict
from training.stability.equilibrium import Equilibrium
from training.stability.progress import Progress
from training.stability.rounds.frozen_optimizers import frozen, plain
from training.stability.rounds.step_limit import largest_stable_factor
from training.stability.run_game import RunGame
from training.stability.spectrum import (
    Spectrum,
    dense_spectrum,
    extremes,
    matrix_of,
    numerical_abscissa,
    rotation_ratio,
    spectra,
)

QUIET = Progress(lambda line: None)


def test_krylov_and_dense_agree(tiny_run: Path) -> None:
    game = RunGame.open(tiny_run)
    (batch,) = game.batches(1)
    at = game.field(batch).at()
    J = matrix_of(at.jvp, at.size)
    dense = torch.from_numpy(J)
    values = np.linalg.eigvals(J)
    for found, size in zip(spectra(dense.__matmul__, at.size), (np.abs, np.real), strict=True):
        assert size(found.values[0]) == pytest.approx(size(values).max(), rel=1e-6)
    symmetric = np.linalg.eigvalsh((J + J.T) / 2)
    ratio = np.linalg.norm(J - J.T) / np.linalg.norm(J + J.T)
    back = torch.from_numpy(J.T.copy()).__matmul__
    assert numerical_abscissa(dense.__matmul__, back, at.size) == pytest.approx(
        symmetric[-1], rel=1e-4
    )
    assert rotation_ratio(dense.__matmul__, back, at.size) == pytest.approx(ratio, rel=0.2)
    own = matrix_of(lambda u: at.own_block("D", u), at.sizes["D"])
    assert extremes(lambda u: at.own_block("D", u), at.sizes["D"]) == pytest.approx(
        tuple(np.linalg.eigvalsh(own)[[0, -1]]), rel=1e-4, abs=1e-6
    )


def test_residuals_are_those_of_the_pairs() -> None:
    rng = np.random.default_rng(0)
    matrix = torch.from_numpy(rng.standard_normal((150, 150)))
    for found in spectra(matrix.__matmul__, 150, num=4, num_vectors=20, refine=False):
        images = matrix.numpy() @ found.vectors
        errors = np.linalg.norm(images - found.vectors * found.values, axis=0)
        assert found.residuals == pytest.approx(errors / np.abs(found.values), rel=1e-6)
    refined = spectra(matrix.__matmul__, 150, ("LM",), num=4, num_vectors=20)[0]
    exact = dense_spectrum(matrix.__matmul__, 150, "LM")
    assert refined.residuals[0] < found.residuals[0]
    assert refined.radius == pytest.approx(exact.radius, rel=1e-2)


@pytest.mark.parametrize("limit", [0.3, 1.0, 6.4])
def test_the_first_crossing_is_found(limit: float) -> None:
    assert largest_stable_factor(lambda s: s / limit) == pytest.approx(limit, rel=1e-8)


def test_no_step_and_every_step() -> None:
    assert largest_stable_factor(lambda s: 1 + s) is None
    assert largest_stable_factor(lambda s: 0.5) == math.inf


def test_the_limit_holds_where_it_is_tried() -> None:
    """Dirac with R1: alternating steps of 2.976 at most, here by steps of 0.7."""
    found = step_limit(operator(dirac("r1=0.3")), drift=1e-6, progress=QUIET)
    assert found.factor == pytest.approx(2.976122 / 0.7, rel=0.06)
    assert found.below is not None
    assert found.above is not None
    assert found.below < 1 < found.above


def test_a_flow_that_grows_has_no_limit() -> None:
    game = operator(dirac(objective="wasserstein"))
    grows = replace(game, jacobian=replace(game.jacobian, matrix=torch.eye(2).double()))  # type: ignore[type-var]
    assert step_limit(grows, drift=1e-6, progress=QUIET).factor is None


@pytest.mark.parametrize(
    ("method", "betas"),
    [("adam", (0.5, 0.999999)), ("adam", (0.0, 0.999999)), ("rmsprop", (0.5, 0.999999)),
     ("sgd", (0.9, 0.0)), ("optimistic-adam", (0.5, 0.999999))],
)  # fmt: skip
def test_a_frozen_optimiser_moves_as_torchs_does(method: str, betas: tuple[float, float]) -> None:
    """With a second moment that hardly changes, the linear map is the optimiser's step."""
    network = torch.nn.Linear(3, 1, bias=False).double()
    options = OptimizerConfig(method=method, lr=0.01, betas=betas)
    player = PlayerState(network, options)
    none = torch.zeros(())
    generator = torch.Generator().manual_seed(1)

    def draw() -> torch.Tensor:
        return torch.randn(1, 3, generator=generator).double()

    for _ in range(400):
        player.move((draw(),), none)
    linear = frozen(player, options)
    state = player.optimizer.state[player.parameters[0]]
    memory = []
    if betas[0]:
        name = {"adam": "exp_avg", "optimistic-adam": "exp_avg"}.get(method, "momentum_buffer")
        moment = state[name].flatten().clone()
        # Torch keeps Adam's moment before it is divided by the second one's root.
        memory.append(moment * linear.scale if "adam" in method else moment)
    if player.optimism is not None:
        memory.append(player.optimism.last[0].flatten().clone())
    before, gradient = network.weight.detach().flatten().clone(), draw()
    move, kept = linear.step(gradient.flatten(), memory)
    player.move((gradient,), none)
    assert len(kept) == linear.num_remembered
    after = network.weight.detach().flatten()
    assert (after - before).numpy() == pytest.approx(move.numpy(), rel=1e-2)


def test_a_momentum_of_the_round_is_the_optimisers() -> None:
    assert operator(dirac(), plain(0.1, 0.5)).size == 4


def test_alex_gda_is_the_trainings() -> None:
    """The eigenvalues of tests/training/game/test_dirac.py, and a 0 for D's move of before."""
    played = operator(dirac(objective="minimax"), update="alternating-extrapolation")
    found = np.sort_complex(np.array(round_eigenvalues(played)))
    expected = [-0.158264, 0, 0.834132 - 0.279731j, 0.834132 + 0.279731j]
    assert found == pytest.approx(np.array(expected), abs=1e-6)


def test_a_run_is_reported(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spectrum", str(tiny_run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["batches"]) == 3
    assert found["difference"] < 1e-4
    radii = [abs(complex(*each["round"]["values"][0])) for each in found["batches"]]
    assert found["radius"] == pytest.approx(np.mean(radii))
    assert len(set(radii)) == 3  # disjoint batches
    assert found["limits"]


def test_the_text_has_verdict_and_limits(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["spectrum", str(tiny_run), "--batches", "1"]) == 0
    text = capsys.readouterr().out
    for part in ("0.960 kimg", "growth", "H_D, D's own", "no equilibrium", "lazy penalties"):
        assert part in text.replace("Growth", "growth")


def test_lazy_penalties_count_with_their_mean(make_run: MakeRun, tiny_run: Path) -> None:
    """R1 of weight 0.3 at every fourth step is R1 of 0.3 at every step, not of 1.2."""
    lazy = RunGame.open(tiny_run)
    assert [str(term) for term in lazy.terms] == ["r1=0.3"]
    (batch,) = lazy.batches(1)
    always = lazy.field(batch, {"r1": 0.3}).at().value
    assert torch.equal(lazy.field(batch).at().value, always)
    assert not torch.equal(lazy.field(batch, {"r1": 0.0}).at().value, always)


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(words)
    return code, capsys.readouterr().err


def test_bad_input_is_said_in_words(
    tiny_run: Path,
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = str(tiny_run)
    other = make_run(network=replace(tiny_config().network, hidden=3), seed=1)
    (foreign,) = (other / "checkpoints").iterdir()
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((tiny_run / "config.json").read_text())
    clipped = make_run(regularizers=(Term.parse("clip=0.1"),))
    steps = OptimizerConfig(method="normalized-sgd", lr=0.01, betas=(0.0, 0.0))
    normalized = make_run(optim_G=steps, optim_D=steps)
    for words, code, message in (
        ([], ConfigError.exit_code, "RUN is not given"),
        ([str(tmp_path)], CheckpointError.exit_code, "holds a config.json"),
        ([str(bare)], CheckpointError.exit_code, "it holds no checkpoint"),
        ([run, "--checkpoint", "best"], CheckpointError.exit_code, "checkpoint is 'best', allowed"),
        ([run, "--checkpoint", str(foreign)], CheckpointError.exit_code, "network.hidden is 2"),
        ([run, "--batch-size", "5000"], ConfigError.exit_code, "at most 1797"),
        ([run, "--batch-size", "900"], ConfigError.exit_code, "batches is 3"),
        ([run, "--num", "0"], ConfigError.exit_code, "num is 0"),
        ([str(clipped)], StabilityError.exit_code, "no Jacobian"),
        (
            [str(normalized)],
            ConfigError.exit_code,
            "optim.method is 'normalized-sgd', allowed",
        ),
    ):
        found = refusal(["spectrum", *words], capsys)
        assert found[0] == code, words
        assert message in found[1], words
    assert main(["exponent", str(normalized), "--rounds", "40", "--json"]) == 0
    assert math.isfinite(json.loads(capsys.readouterr().out)["exponent"])
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**20)
    code, message = refusal(["spectrum", run], capsys)
    assert code == StabilityError.exit_code
    assert "1 MiB are available; set a smaller --batch-size" in message


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def no_checkpoints(path: Path) -> dict[str, bytes]:
    """Contents of files that are no checkpoint, some made of one."""
    whole = path.read_bytes()
    content = torch.load(path, weights_only=True)
    return {
        "text": b"root:x:0:0:root:/root:/bin/bash\n" * 9,
        "empty": b"",
        "bytes": b"x" * 100,
        "half": whole[: len(whole) // 2],
        "code": saved({"format": Path("for the unpickler, which refuses classes")}),
        "list": saved([1, 2]),
        "tensors": saved({"weight": torch.zeros(2)}),
        "another format": saved({**content, "format": 99}),
        "no weights": saved({"format": content["format"]}),
        "other weights": saved({**content, "G": 3}),
        "other moments": saved({**content, "optim_D": {"a": 1}}),
        "other options": saved({**content, "config": None}),
        "other place": saved({**content, "cur_nimg": None}),
    }


def test_a_file_that_is_no_checkpoint_is_named_beside_those_that_are(
    tiny_run: Path, tmp_path: Path
) -> None:
    (own,) = (tiny_run / "checkpoints").iterdir()
    for name, content in no_checkpoints(own).items():
        # Also under a checkpoint's name: it is the user's file, and not to be deleted.
        file = tmp_path / name / own.name
        file.parent.mkdir()
        file.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            RunGame.open(tiny_run, str(file))
        text = str(caught.value)
        assert text.startswith(f"checkpoint is {str(file)!r}"), name
        assert text.endswith(f"; choose one of {own.name}"), text
        assert not re.search(r"\n|delete|weights_only|index out of range", text), text
        assert file.read_bytes() == content
    for word in ("a\0b", "x" * 5000, str(tmp_path)):
        with pytest.raises(CheckpointError, match=f"allowed: {own.name}, or a file's path"):
            RunGame.open(tiny_run, word)


def test_a_damaged_checkpoint_of_the_run_names_the_others(make_run: MakeRun) -> None:
    run = make_run(1)
    (own,) = (run / "checkpoints").iterdir()
    newest = own.with_name("checkpoint-0000009999.pt")
    newest.write_bytes(own.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=rf"damaged.*; choose one of {own.name}$"):
        RunGame.open(run)
    with pytest.raises(CheckpointError, match="delete it to resume from the one before"):
        Checkpoints(run / "checkpoints").latest()


def test_the_exponent_of_a_run(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["exponent", str(tiny_run), "--rounds", "20", "--block", "5"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["blocks"]) == 3
    assert math.isfinite(found["exponent"])
    assert main(words) == 0
    assert "Lyapunov exponent" in capsys.readouterr().out
    assert main([*words[:2], "--rounds", "3"]) == ConfigError.exit_code


def analysis_of(mu: complex, *, residual: float = 0.0) -> Analysis:
    """An analysis whose round has this leading eigenvalue."""
    played = Spectrum(
        values=np.array([mu], dtype=np.complex128),
        vectors=np.ones((1, 1), dtype=np.complex128),
        residuals=np.array([residual]),
        num_products=1,
        is_whole=True,
    )
    one = BatchSpectrum(speed={"G": 0.0, "D": 0.0}, largest=played, rightmost=played, round=played)
    return Analysis(
        batches=(one,),
        equilibrium=Equilibrium(block_G=(1, 2), block_D=(1, 2), schur_G=None, tau=None),
        rotation=0.0,
        numerical_abscissa=0.0,
        limit=StepLimit(factor=None),
        difference=0.0,
    )


@pytest.mark.parametrize(
    ("mu", "words"),
    [
        (1.1 * np.exp(0.1j), "e-fold in 10 rounds, turning once in 63 rounds"),
        (1.1, "e-fold in 10 rounds, without turning"),
        (-1.1, "changing its sign every round"),
        (0.99, "No growth beyond 0.001"),
    ],
)
def test_the_verdict_follows_from_the_leading_eigenvalue(mu: complex, words: str) -> None:
    found = analysis_of(mu)
    assert words in verdict(found, 1e-3)
    # Two rounds an application: each round grows by the root.
    half = replace(found, num_rounds=2)
    assert half.radius == pytest.approx(abs(mu) ** 0.5)
