"""The routes under /v1: images from seeds, and what models there are."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from models.latents import MAX_SEED
from serving.catalogue import Served
from serving.errors import InvalidRequestProblem, UnknownRouteProblem
from serving.http import Exchange, Headers, Reply
from serving.images import SUFFIXES
from serving.router import Route
from serving.schemas import Order, decode_request, order, validated
from serving.service import Service
from serving.settings import Settings
from serving.terms import Terms, read_terms
from serving.validators import etag, lifetime, matches
from serving.walks import decode_walk, walk_order
from serving.wording import shown


class V1:
    """One method a route."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings: Settings = service.settings
        self._catalogue = service.catalogue

    def routes(self) -> list[Route]:
        """The paths under /v1, and LitServe's own /predict."""
        return [
            Route("/v1/generate", {"POST": self.generate}),
            Route("/predict", {"POST": self.generate}),
            Route("/v1/interpolate", {"POST": self.interpolate}),
            Route("/v1/models", {"GET": self.models}),
            Route("/v1/models/{model}", {"GET": self.model}),
            Route("/v1/models/{model}/images/{file}", {"GET": self.image}),
        ]

    async def generate(self, exchange: Exchange) -> Reply:
        """POST /v1/generate."""
        body = await exchange.body(self._settings.max_body_bytes)
        ordered, terms = self.read_order(body, exchange.header)
        return await self._service.make(ordered, terms, exchange)

    def read_order(
        self, body: bytes | bytearray, header: Callable[[bytes], bytes | None]
    ) -> tuple[Order, Terms]:
        """What a generate request asks for, and how it wants to be served.

        Raises:
            Problem: it can't be carried out.
        """
        self._service.batcher.check_room(1)  # where the queue is full, refuse before reading
        request = decode_request(body)
        ordered = order(request, self._catalogue, self._settings, header(b"accept"))
        return ordered, read_terms(header, self._settings)

    async def interpolate(self, exchange: Exchange) -> Reply:
        """POST /v1/interpolate."""
        request = decode_walk(await exchange.body(self._settings.max_body_bytes))
        accept = exchange.header(b"accept")
        ordered = walk_order(request, self._catalogue, self._settings, accept)
        terms = read_terms(exchange.header, self._settings, bulk=True)
        return await self._service.make(ordered, terms, exchange)

    async def image(self, exchange: Exchange) -> Reply:
        """GET /v1/models/{model}/images/{seed}.png."""
        seed, _, suffix = exchange.params["file"].partition(".")
        if suffix not in SUFFIXES:
            raise UnknownRouteProblem(
                f"file is {shown(exchange.params['file'])}; ask for SEED.{', SEED.'.join(SUFFIXES)}"
            )
        query = exchange.query("label", "truncation", "version")
        label, version = (
            None if query.get(name) is None else _integer(name, query[name])
            for name in ("label", "version")
        )
        number = _integer("seed", seed)
        if not 0 <= number <= MAX_SEED:
            raise InvalidRequestProblem(f"seed is {seed}, allowed are 0 .. {MAX_SEED} (2**64 - 1)")
        fields: dict[str, Any] = {
            "model": exchange.params["model"],
            "version": version,
            "seeds": [number],
            "labels": label,
            "truncation": _number("truncation", query.get("truncation", "1")),
            "format": SUFFIXES[suffix],
        }
        ordered = order(validated(fields), self._catalogue, self._settings, label_field="label")
        terms = read_terms(exchange.header, self._settings)
        key = ordered.image_key(0)
        assert key is not None
        tag = etag(key)
        kept = lifetime(pinned=version is not None, public=not self._service.gate.closed)
        headers: Headers = ((b"etag", tag), (b"cache-control", kept))
        if matches(exchange.header(b"if-none-match"), tag):
            return Reply(b"", status=304, headers=headers, sized=False)
        reply = self._service.replies.cached(ordered, exchange.visit)
        if reply is None and exchange.method == "HEAD":  # nothing is made to be thrown away
            headers += ordered.served.headers
            return Reply(b"", ordered.encoding.media_type, headers=headers, sized=False)
        if reply is None:
            reply = await self._service.make(ordered, terms, exchange)
        return dataclasses.replace(reply, headers=(*reply.headers, *headers))

    async def models(self, exchange: Exchange) -> Reply:
        """GET /v1/models."""
        exchange.query()
        return Reply.json(
            {"models": [self._describe(served) for served in self._catalogue.current]}
        )

    async def model(self, exchange: Exchange) -> Reply:
        """GET /v1/models/{model}."""
        query = exchange.query("version")
        version = None if "version" not in query else _integer("version", query["version"])
        served = self._catalogue.resolve(exchange.params["model"], version)
        return Reply.json(self._describe(served))

    def _describe(self, served: Served) -> dict[str, Any]:
        manifest = served.manifest
        name, version = served.key
        return {
            "name": name,
            "version": version,
            "digest": served.bundle.digest,
            "versions": self._catalogue.versions(name),
            "candidate": self._candidate(name),
            "z_dim": manifest.z_dim,
            "image": manifest.image,
            "labels": manifest.labels,
            "recipe": manifest.recipe,
            "dataset": manifest.dataset,
            "metrics": manifest.metrics,
            "created": manifest.created,
            "limits": {
                "max_seeds": self._settings.max_seeds,
                "max_frames": self._settings.max_frames,
                "max_image_pixels": self._settings.max_image_pixels,
                "max_body_bytes": self._settings.max_body_bytes,
                "request_timeout_ms": self._settings.request_timeout_ms,
            },
        }

    def _candidate(self, name: str) -> dict[str, Any] | None:
        """The version on trial; `refused` says why it takes no part, if it doesn't."""
        found = self._catalogue.candidacies.get(name)
        if found is None:
            return None
        return {
            "version": found.version,
            "share_percent": found.share_percent,
            "digest": found.digest or None,
            "refused": found.refused or None,
        }


def _integer(name: str, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,39}", text):
        raise InvalidRequestProblem(f"{name} is {shown(text)}, must be a whole number")
    return int(text)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequestProblem(f"{name} is {shown(text)}, must be a number") from None
