"""A job as clients see it."""

from typing import Any

from serving.jobs.store import Job


def described(job: Job, keep_s: float) -> dict[str, Any]:
    """Describes a job, with the fields of `serving.api.schemas.Job`.

    keep_s: how long it is kept after its end.

    Raises:
        UnknownJobProblem: it is gone.
    """
    spec, state = job.spec(), job.state()
    return {
        "id": job.id,
        "status": state.status,
        "model": spec.model,
        "version": spec.version,
        "digest": spec.digest,
        "num_images": spec.num_images,
        "num_done": state.num_done,
        "num_bytes": state.num_bytes,
        "archive": spec.archive,
        "problem": state.problem,
        "created": spec.created,
        "ended": state.ended,
        "expires": None if state.ended is None else state.ended + keep_s,
    }
