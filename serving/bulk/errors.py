"""What ends a bulk run; each error has the exit code of the command."""

from typing import ClassVar

from serving.errors import ServingError


class BulkError(ServingError):
    """The run can't go on; finished shards stay, the same command continues."""


class PlanError(BulkError):
    """An option is wrong, or the plan can't be carried out; nothing was written."""

    exit_code: ClassVar[int] = 2


class TargetError(BulkError):
    """The place for the files can't be read or written."""

    exit_code: ClassVar[int] = 5


class ExecutorError(BulkError):
    """Workers died or can't be started."""

    exit_code: ClassVar[int] = 6
