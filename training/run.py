"""`python -m training.run [RECIPE] [--option value]`: fit, export, evaluate, publish.

A user's mistake ends with one message on stderr and the error's exit code; a signal ends with a
saved checkpoint and 0, or with --resume auto as one ends whom the signal kills: 143 for SIGTERM.
"""

import sys
from collections.abc import Sequence

from training.catalogue import catalogue
from training.command import AUTO, parse
from training.contradictions import notes
from training.distributed import joined
from training.errors import TrainingError
from training.interruption import InterruptedRun, Interruption
from training.session import Session


def main(argv: Sequence[str]) -> int:
    """Runs a command line and returns the exit code."""
    interruption = Interruption()
    try:
        command = parse(argv)
        if command.options.show_list:
            print(catalogue())
        elif command.options.dry_run:
            Session.rehearse(command)
            for line in notes(command.config):
                print(f"note: {line}", file=sys.stderr)
            print(command.to_json(), end="")
        else:
            with interruption.handled(), joined() as world:
                Session.open(command, interruption, sys.stdout, world).run()
    except InterruptedRun:
        is_restarted = command.options.resume == AUTO
        return 128 + interruption.signal if is_restarted and interruption.signal else 0
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
