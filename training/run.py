"""`python -m training.run [RECIPE] [--option value]`: train, export, evaluate, publish.

A user's mistake ends with one message on stderr and the error's exit code. SIGTERM, Ctrl-C, SIGHUP
and SIGUSR1 end with a saved checkpoint and exit code 0. With `--resume auto` they end with 128 plus
the signal's number (143 for SIGTERM), so that whatever restarts the job knows that it isn't done. A
second signal ends the process at once, with the same number.
"""

import sys
from collections.abc import Sequence

from training.errors import TrainingError, UnsavedError, meaning_of
from training.runs.interruption import InterruptedRun, Interruption
from training.stdout import ClosedPipeIgnored, LastingStream

PROG = "python -m training.run"


def main(argv: Sequence[str], *, prog: str = PROG) -> int:
    """Runs a command line and returns the exit code; prog: how it was called."""
    interruption = Interruption(is_restarted=_resumes_itself(argv))
    try:
        with interruption.handled():
            _run(argv, prog, interruption)
    except InterruptedRun:
        return interruption.exit_code
    except TrainingError as error:
        # A restarted job goes on from its last checkpoint, whether the disk is full or not.
        if isinstance(error, UnsavedError) and interruption.exit_code:
            return interruption.exit_code
        errors = LastingStream(sys.stderr)
        errors.write(f"error: {error}\n")
        errors.flush()
        return error.exit_code
    return 0


def _run(argv: Sequence[str], prog: str, interruption: Interruption) -> None:
    # Imported here: torch takes seconds, in which a signal may come.
    from training.cli.command import parse
    from training.cli.listing import listing, short_listing
    from training.config.rules import notes
    from training.engine.distributed import joined

    command = parse(argv, prog=prog)
    if command.options.show_list:
        with ClosedPipeIgnored():
            print(short_listing() if command.options.short else listing())
        return
    # TensorBoard and the ONNX exporter take seconds that --help and --list need not wait for.
    from training.report.writer import write_at_end
    from training.runs.pipeline import Pipeline
    from training.runs.prometheus.endpoint import endpoint
    from training.runs.prometheus.metrics import RunMetrics

    if command.options.dry_run:
        Pipeline.dry_run(command)
        for line in notes(command.config):
            print(f"note: {line}", file=sys.stderr)
        with ClosedPipeIgnored():
            print(command.to_json(), end="")
        return
    try:
        options, metrics = command.options, RunMetrics()
        with joined(options.device) as world:
            stream = LastingStream(sys.stdout)
            port = options.metrics_port if world.leads else 0
            with endpoint(options.metrics_host, port, metrics.registry):
                Pipeline.open(command, interruption, stream, world, write_at_end, metrics).run()
    except TrainingError as error:
        # Code that a signal met while it loaded data may have made an error of its exception.
        if not isinstance(error, UnsavedError):
            interruption.check()
        raise
    except (RuntimeError, MemoryError) as error:
        meaning = meaning_of(error)
        if meaning is None:
            raise
        raise meaning from error


def _resumes_itself(argv: Sequence[str]) -> bool:
    """True for --resume auto. The command line isn't parsed yet when the first signal may come."""
    words = list(argv)
    pairs = zip(words, [*words[1:], ""], strict=True)
    return any(pair == ("--resume", "auto") or pair[0] == "--resume=auto" for pair in pairs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
