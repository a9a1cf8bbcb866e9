"""Requests for long jobs: their JSON, and how it is checked before a job is accepted."""

import argparse
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from models.seed_list import TooManySeedsError, seeds_of
from serving.dispatch.catalogue import Catalogue
from serving.errors import InvalidRequestProblem, quoted
from serving.http.json_body import Most, decode
from serving.requests.generate import Truncation, Version
from serving.requests.rules import (
    as_seeds,
    check_alpha,
    check_labels,
    check_pixels,
    check_seeds,
    draw_seeds,
)
from serving.settings import Settings
from serving.webhook_hosts import is_allowed


class JobRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seeds or a count of seeds to draw; an image file each, in one archive."""

    model: Annotated[
        str | None,
        msgspec.Meta(description="Name of the model; may be absent if only one is served."),
    ] = None
    version: Version = None
    seeds: Annotated[
        list[int | str] | str | None,
        msgspec.Meta(description="As of POST /v1/generate, or a text of ranges: 1-50000,70000."),
    ] = None
    count: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        msgspec.Meta(description="Instead of seeds: how many images of seeds that are drawn."),
    ] = None
    labels: Annotated[
        list[int] | int | None,
        msgspec.Meta(
            description="Class of each image, or one for all; conditional models need it."
        ),
    ] = None
    truncation: Truncation = 1.0
    format: Annotated[
        Literal["png", "jpeg", "webp"], msgspec.Meta(description="Of each image.")
    ] = "png"
    archive: Annotated[Literal["tar", "zip"], msgspec.Meta(description="Of all images.")] = "tar"
    webhook: Annotated[
        str | None,
        msgspec.Meta(
            description="A URL that gets the job by POST when it has ended; its host must be one "
            "that the operator allows."
        ),
    ] = None


@dataclass(frozen=True)
class CheckedJob:
    """What a job makes: of one version, with everything that its images depend on."""

    model: str
    version: int
    digest: str
    seeds: list[int]
    labels: list[int] | int | None
    truncation: float
    format: str
    archive: str
    webhook: str | None
    pixels: int
    """Of each image."""


_decoder = msgspec.json.Decoder(JobRequest)


def read_job(body: bytes | bytearray, catalogue: Catalogue, settings: Settings) -> CheckedJob:
    """Reads and checks the body of a request for a job.

    Raises:
        NotJsonProblem: the body isn't JSON.
        InvalidRequestProblem: a field is wrong, for this model or at all.
        UnknownModelProblem: there is no such model or version.
        UnavailableProblem: the version can't be used.
    """
    most = Most(2 * settings.max_job_images)  # seeds and labels
    request = decode(_decoder, body, example='{"seeds": "1-5000"}', most=most)
    if request.webhook is not None:
        check_webhook(request.webhook, settings.webhook_hosts)
    seeds = _seeds(request, settings.max_job_images)
    served = catalogue.resolve(request.model, request.version, seeds)
    check_seeds(seeds)
    check_pixels(1, served, settings)
    check_alpha(request.format, served)
    check_labels(request.labels, len(seeds), served)
    (name, version), image = served.key, served.manifest.image
    return CheckedJob(
        model=name,
        version=version,
        digest=served.bundle.digest,
        seeds=seeds,
        labels=request.labels,
        truncation=request.truncation,
        format=request.format,
        archive=request.archive,
        webhook=request.webhook,
        pixels=image.height * image.width,
    )


def _seeds(request: JobRequest, most: int) -> list[int]:
    if (request.seeds is None) == (request.count is None):
        which = "neither" if request.seeds is None else "both"
        raise InvalidRequestProblem(f"{which} of seeds and count is given; give one of them")
    if request.count is not None:
        num = request.count
        seeds = draw_seeds(num) if num <= most else []
    elif isinstance(request.seeds, str):
        try:
            seeds = seeds_of(request.seeds, most)
        except TooManySeedsError as error:
            raise InvalidRequestProblem(
                f"seeds: {error} are asked for, a job may have 1 .. {most}; send several jobs"
            ) from None
        except argparse.ArgumentTypeError as error:
            raise InvalidRequestProblem(f"seeds: {error}") from None
        num = len(seeds)
    else:
        assert request.seeds is not None
        num = len(request.seeds)
        seeds = as_seeds(request.seeds) if num <= most else []
    if not 1 <= num <= most:
        raise InvalidRequestProblem(
            f"{num} images are asked for, a job may have 1 .. {most}; send several jobs"
        )
    return seeds


def check_webhook(url: str, hosts: tuple[str, ...]) -> None:
    """Raises InvalidRequestProblem for a URL of a host that the operator has not named."""
    if not is_allowed(url, hosts):
        allowed = ", ".join(hosts) or "none (--webhook-hosts)"
        raise InvalidRequestProblem(
            f"webhook is {quoted(url)}, must be an http or https URL without user and password of "
            f"one of these hosts: {allowed}"
        )
