"""`python -m training.run [RECIPE] [--option value]`: fit, export, evaluate, publish.

A user's mistake ends with one message on stderr and the error's exit code; a signal ends with a
saved checkpoint and 0.
"""

import sys
from collections.abc import Sequence

from training.command import catalogue, parse
from training.distributed import joined
from training.errors import TrainingError
from training.interruption import InterruptedRun, Interruption
from training.session import Session


def main(argv: Sequence[str]) -> int:
    """Runs a command line and returns the exit code."""
    try:
        command = parse(argv)
        if command.options.show_list:
            print(catalogue())
        elif command.options.dry_run:
            print(command.to_json(), end="")
        else:
            with Interruption().handled() as interruption, joined() as world:
                Session.open(command, interruption, sys.stdout, world).run()
    except InterruptedRun:
        return 0
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
