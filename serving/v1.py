"""The routes under /v1: images from seeds, and what models there are."""

from collections.abc import Callable
from typing import Any

from serving.catalogue import Served
from serving.errors import InvalidRequestProblem, UnknownRouteProblem
from serving.http import Exchange, Reply, Route
from serving.images import SUFFIXES
from serving.schemas import Order, decode_request, order, validated
from serving.service import Service
from serving.settings import Settings
from serving.terms import Terms, read_terms


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
        return order(request, self._catalogue, self._settings), read_terms(header, self._settings)

    async def image(self, exchange: Exchange) -> Reply:
        """GET /v1/models/{model}/images/{seed}.png."""
        seed, _, suffix = exchange.params["file"].partition(".")
        if suffix not in SUFFIXES:
            raise UnknownRouteProblem(
                f"file is {exchange.params['file']!r}; ask for SEED.{', SEED.'.join(SUFFIXES)}"
            )
        query = exchange.query("label", "truncation", "version")
        label, version = (
            None if query.get(name) is None else _integer(name, query[name])
            for name in ("label", "version")
        )
        fields: dict[str, Any] = {
            "model": exchange.params["model"],
            "version": version,
            "seeds": [_integer("seed", seed)],
            "labels": label,
            "truncation": _number("truncation", query.get("truncation", "1")),
            "format": SUFFIXES[suffix],
        }
        ordered = order(validated(fields), self._catalogue, self._settings)
        return await self._service.make(
            ordered, read_terms(exchange.header, self._settings), exchange
        )

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
            "z_dim": manifest.z_dim,
            "image": manifest.image,
            "labels": manifest.labels,
            "recipe": manifest.recipe,
            "dataset": manifest.dataset,
            "metrics": manifest.metrics,
            "created": manifest.created,
            "limits": {
                "max_seeds": self._settings.max_seeds,
                "max_body_bytes": self._settings.max_body_bytes,
                "request_timeout_ms": self._settings.request_timeout_ms,
            },
        }


def _integer(name: str, text: str) -> int:
    if not text.isascii() or not text.lstrip("-").isdigit() or len(text) > 40:
        raise InvalidRequestProblem(f"{name} is {text[:60]!r}, must be a whole number")
    return int(text)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequestProblem(f"{name} is {text[:60]!r}, must be a number") from None
