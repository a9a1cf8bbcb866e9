"""A server with its openapi.json: makes the requests of its examples, and checks the responses."""

from typing import Any

import httpx
from jsonschema import Draft202012Validator

from tests.conftest import ServerProcess
from tests.support import HTTP

# Of every answer of HTTP, or of every page; they say nothing of this server.
GENERIC = {"content-type", "content-length", "date", "server", "connection", "allow"}
GENERIC |= {"content-security-policy", "x-content-type-options", "referrer-policy"}
GENERIC |= {"content-encoding", "vary"}


class Documented:
    """A server with all that its description speaks of, and that description."""

    def __init__(self, server: ServerProcess, spec: dict[str, Any] | None = None) -> None:
        """spec: in place of the server's own."""
        self.server = server
        self.spec: dict[str, Any] = spec or server.get("/openapi.json").json()
        self.operations = [
            (path, method, operation)
            for path, operations in self.spec["paths"].items()
            for method, operation in operations.items()
        ]

    def resolved(self, entry: Any) -> Any:
        """What a reference leads to."""
        if "$ref" not in entry:
            return entry
        found: Any = self.spec
        for name in entry["$ref"].split("/")[1:]:
            found = found[name]
        return found

    def example(self, path: str, method: str) -> dict[str, Any]:
        """The request that the examples make, as httpx takes it."""
        operation = self.spec["paths"][path][method]
        given: dict[str, dict[str, Any]] = {"path": {}, "query": {}}
        for entry in map(self.resolved, operation["parameters"]):
            if "example" in entry:
                given[entry["in"]][entry["name"]] = entry["example"]
        request = {
            "method": method.upper(),
            "url": self.server.url + path.format(**given["path"]),
            "params": given["query"],
        }
        json = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in json.get("examples", {}).values():
            request["json"] = example["value"]
        return request

    def ask(self, path: str, method: str = "get", **changes: Any) -> httpx.Response:
        """The example's request with some changes; its answer must be as documented."""
        response = HTTP.request(**self.example(path, method) | changes)
        self.check(path, method, response)
        return response

    def check(self, path: str, method: str, response: httpx.Response) -> None:
        """Holds an answer against the description: status, headers, type, fields."""
        responses = self.spec["paths"][path][method]["responses"]
        where = f"{method} {path}: {response.status_code} {response.text[:300]}"
        assert str(response.status_code) in responses, where
        entry = responses[str(response.status_code)]
        headers = {
            name.lower() for name, ref in entry["headers"].items() if self.resolved(ref)["required"]
        }
        known = {name.lower() for name in entry["headers"]}
        assert headers <= set(response.headers), where
        assert set(response.headers) - GENERIC <= known, where
        content = entry.get("content", {})
        if not response.content:
            assert method == "head" or not content, where
            return
        media_type = response.headers["content-type"].partition(";")[0]
        assert media_type in content, where
        if media_type.endswith("json"):
            schema = {**content[media_type]["schema"], "components": self.spec["components"]}
            Draft202012Validator(schema).validate(response.json())
