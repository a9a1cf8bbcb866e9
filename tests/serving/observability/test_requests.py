"""What every request meets on both paths: its id, origins, a line of log, a span."""

import asyncio
import json
import logging
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.router import Route, Router
from serving.command_line import parse
from serving.errors import SettingsError
from serving.http.messages import Request, Response
from serving.observability.buffered import BufferedMetrics
from serving.observability.logs import JsonFormatter, TextFormatter, fields
from serving.observability.requests import RequestRecorder
from serving.observability.tracing import check_endpoint, trace_id_of
from tests.serving.conftest import ORIGIN, attributes_of
from tests.support import HTTP, wait_for

ORDER = {"model": "grey", "seeds": [1, 2, 3]}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(params=[False, True], ids=["short", "long"])
def chunked(request: pytest.FixtureRequest) -> bool:
    """Which path a request takes."""
    return bool(request.param)


def test_a_request_keeps_the_id_that_it_brings(guarded: Any, chunked: bool) -> None:
    for given_id in ("a", "x" * 128, "~ any {printable} <thing>"):
        response = guarded.post(ORDER, chunked=chunked, x_request_id=given_id)
        assert response.headers["x-request-id"] == given_id
    assert (
        guarded.post({}, chunked=chunked, x_request_id="wrong").headers["x-request-id"] == "wrong"
    )


def test_an_id_that_no_log_should_hold_is_replaced(guarded: Any, chunked: bool) -> None:
    for bad in (b"x" * 129, b"a\tb", "h\xe9".encode("latin-1"), b""):
        response = HTTP.post(
            guarded.server.url + "/v1/generate",
            content=iter([json.dumps(ORDER).encode()]) if chunked else json.dumps(ORDER).encode(),
            headers={b"authorization": f"Bearer {guarded.key}".encode(), b"x-request-id": bad},
        )
        assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", response.headers["x-request-id"])


def test_every_answer_has_an_id_of_its_own(guarded: Any) -> None:
    found = []
    for path in ("/livez", "/docs", "/nothing", "/v1/models", "/openapi.json", "/metrics"):
        for headers in ({}, {"authorization": f"Bearer {guarded.key}"}):
            found.append(guarded.server.get(path, headers=headers).headers["x-request-id"])
    found += [guarded.post(body).headers["x-request-id"] for body in (ORDER, {}, ORDER)]
    assert len(set(found)) == len(found) == 15


def test_a_page_of_a_named_origin_may_ask(guarded: Any, chunked: bool) -> None:
    for body in (ORDER, {}):  # mistakes can be read too
        response = guarded.post(body, chunked=chunked, origin=ORIGIN)
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["access-control-expose-headers"] == "*"
        assert response.headers["vary"] == "origin"
    assert "access-control-allow-credentials" not in response.headers
    refused = guarded.post(ORDER, chunked=chunked, key="wrong", origin=ORIGIN)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)


@pytest.mark.parametrize("origin", [None, "https://example.com", "http://example.org", "null", "*"])
def test_other_origins_may_not(guarded: Any, chunked: bool, origin: str | None) -> None:
    response = guarded.post(ORDER, chunked=chunked, **({"origin": origin} if origin else {}))
    assert "access-control-allow-origin" not in response.headers
    assert response.headers["vary"] == "origin"  # a cache may not give this to the others


def test_a_browser_may_ask_first_without_a_key(guarded: Any) -> None:
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-priority",
    }
    response = HTTP.options(guarded.server.url + "/v1/generate", headers=asked)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert response.headers["access-control-allow-methods"] == "POST"
    assert response.headers["access-control-allow-headers"] == "*, authorization"


def test_without_origins_no_page_may_ask(server: Any) -> None:
    headers = {"origin": ORIGIN, "access-control-request-method": "POST"}
    asked = HTTP.options(server.url + "/v1/generate", headers=headers)
    response = server.post("/v1/generate", json=ORDER, headers=headers)
    assert (asked.status_code, response.status_code) == (405, 200)
    for found in (asked, response):
        assert not [name for name in found.headers if name.startswith(("access-control", "vary"))]


@pytest.mark.parametrize("origins", ["*", "http://localhost:3000,https://a.b"])
def test_origins_that_browsers_send_are_taken(origins: str) -> None:
    assert parse(["--cors-origins", origins], {}).cors_origins == tuple(origins.split(","))


@pytest.mark.parametrize(
    "origin",
    ["example.org", "https://example.org/", "https://Example.org", "ftp://a", "https://", "null"],
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(SettingsError, match="--cors-origins has"):
        parse(["--cors-origins", origin], {})


def test_the_access_log_has_a_line_a_request(guarded: Any, chunked: bool) -> None:
    path = f"log-{chunked}"
    traceparent = f"00-{TRACE}-{PARENT}-00"
    guarded.post(ORDER, chunked=chunked, x_request_id=path, traceparent=traceparent)
    guarded.post({}, chunked=chunked, x_request_id=path + "-wrong")
    wait_for(lambda: len(guarded.access(path + "-wrong")) > 0)
    (line,) = guarded.access(path)
    assert (
        line.items()
        >= {
            "level": "info",
            "message": "POST /v1/generate 200",
            "trace_id": TRACE,
            "key": "alice",
            "method": "POST",
            "route": "/v1/generate",
            "status": 200,
            "rows": 3,
            "model": "grey",
            "version": 2,
        }.items()
    )
    assert line["process"].startswith("http-")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert 0 < line["queue_ms"] + line["compute_ms"] + line["encode_ms"] < line["duration_ms"]
    (wrong,) = guarded.access(path + "-wrong")
    assert (wrong["status"], wrong["key"]) == (400, "alice")
    assert "model" not in wrong
    assert guarded.key not in guarded.server.log.read_text()


def test_the_access_log_names_client_path_and_seeds(guarded: Any, chunked: bool) -> None:
    """`guarded` trusts a proxy at 127.0.0.1, as which every test connects."""
    name = f"who-{chunked}"
    guarded.post(ORDER, chunked=chunked, x_request_id=name, x_forwarded_for="6.6.6.6, 203.0.113.7")
    wait_for(lambda: bool(guarded.access(name)))
    (line,) = guarded.access(name)
    asked = {"client": "203.0.113.7", "path": "/v1/generate", "seeds": 3, "key": "alice"}
    assert line.items() >= asked.items()
    url = guarded.server.url + "/v1/models/grey/images/4.png?truncation=0.5"
    headers = {"authorization": f"Bearer {guarded.key}", "x-request-id": name + "-url"}
    assert HTTP.get(url, headers=headers).status_code == 200
    wait_for(lambda: bool(guarded.access(name + "-url")))
    (line,) = guarded.access(name + "-url")
    path = "/v1/models/grey/images/4.png?truncation=0.5"
    assert line.items() >= {"client": "127.0.0.1", "path": path, "seeds": 1}.items()


def test_every_process_and_library_logs_json(guarded: Any) -> None:
    entries = guarded.log()  # each line was JSON
    assert {"main", "worker", "http-0", "http-1"} <= {entry["process"] for entry in entries}
    assert "uvicorn.error" in {entry["logger"] for entry in entries}


def test_a_log_line_holds_what_it_is_given() -> None:
    record = logging.LogRecord("a.b", logging.ERROR, __file__, 1, "said %s", ("x\ny",), None)
    record.__dict__ |= fields(name='a "b"', none=None, number=3)
    entry = json.loads(JsonFormatter().format(record))
    assert (entry["message"], entry["name"], entry["number"]) == ("said x\ny", 'a "b"', 3)
    assert "none" not in entry
    text = f"{entry['time']} ERROR a.b: said x\ny name='a \"b\"' number=3"
    assert TextFormatter().format(record) == text
    try:
        raise ValueError("inner")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    assert "ValueError: inner" in json.loads(JsonFormatter().format(record))["exception"]


def test_a_defect_is_logged_with_the_id_that_the_client_got(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(request: Request) -> Response:
        raise RuntimeError("a defect")

    async def ask() -> list[dict[str, Any]]:
        from serving.http.auth import AccessControl
        from serving.http.origins import Origins
        from serving.http.rate_limit import RateLimiter

        settings = parse([], {})
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def nothing(*args: Any) -> None:
            raise AssertionError("not reached")

        router = Router(
            [Route("GET", "/broken", broken)],
            access=AccessControl(None, RateLimiter(-1)),
            open_paths=frozenset(),
            origins=Origins(settings.cors_origins, settings.allowed_hosts),
            problem_responses={},
            recorder=RequestRecorder(settings, BufferedMetrics()),
        )
        headers = [(b"x-request-id", b"mine")]
        await router({"path": "/broken", "method": "GET", "headers": headers}, nothing, send)
        return sent

    start, body = asyncio.run(ask())
    assert start["status"] == 500
    assert (b"x-request-id", b"mine") in start["headers"]
    assert b"defect" not in body["body"]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.__dict__["fields"] == {"request_id": "mine"}
    assert record.exc_info is not None
    assert "a defect" in str(record.exc_info[1])


def test_a_request_is_a_span_of_its_callers_trace(guarded: Any, chunked: bool) -> None:
    trace = ("1" if chunked else "2") * 32
    headers = {"traceparent": f"00-{trace}-{PARENT}-01", "tracestate": "vendor=1"}
    assert guarded.post(ORDER, chunked=chunked, x_request_id="traced", **headers).status_code == 200
    wait_for(lambda: len([s for _, s in guarded.spans if s.trace_id.hex() == trace]) == 4)
    by_name = {s.name: s for _, s in guarded.spans if s.trace_id.hex() == trace}
    span = by_name.pop("POST /v1/generate")
    assert span.parent_span_id.hex() == PARENT
    assert span.kind == span.SPAN_KIND_SERVER
    assert span.trace_state == "vendor=1"
    assert (
        attributes_of(span).items()
        >= {
            "http.request.method": "POST",
            "http.route": "/v1/generate",
            "http.response.status_code": 200,
            "saddlepoint.request_id": "traced",
            "saddlepoint.model": "grey",
            "saddlepoint.rows": 3,
            "saddlepoint.key": "alice",
        }.items()
    )
    assert set(by_name) == {"queue", "infer", "encode"}
    ends = [span.start_time_unix_nano]
    for name in ("queue", "infer", "encode"):
        assert by_name[name].parent_span_id == span.span_id
        ends += [by_name[name].start_time_unix_nano, by_name[name].end_time_unix_nano]
    assert [*ends, span.end_time_unix_nano] == sorted([*ends, span.end_time_unix_nano])
    assert {resource["service.name"] for resource, _ in guarded.spans} == {"saddlepoint"}


def test_a_caller_that_does_not_sample_is_obeyed_and_one_without_a_trace_gets_one(
    guarded: Any,
) -> None:
    unsampled = "3" * 32
    guarded.post(ORDER, traceparent=f"00-{unsampled}-{PARENT}-00")
    guarded.post({}, x_request_id="untraced", traceparent="00-nonsense")
    wait_for(lambda: len(guarded.access("untraced")) > 0)
    trace = guarded.access("untraced")[0]["trace_id"]
    wait_for(lambda: any(span.trace_id.hex() == trace for _, span in guarded.spans))
    (span,) = [span for _, span in guarded.spans if span.trace_id.hex() == trace]
    assert not span.parent_span_id
    assert attributes_of(span)["http.response.status_code"] == 400
    assert not [span for _, span in guarded.spans if span.trace_id.hex() == unsampled]


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (f"00-{TRACE}-{PARENT}-01", TRACE),
        (f"cc-{TRACE}-{PARENT}-01-later", TRACE),
        (f"00-{TRACE}-{PARENT}-01-later", None),
        (f"cc-{TRACE}-{PARENT}-01later", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00_{TRACE}_{PARENT}_01", None),
        ("", None),
    ],
)
def test_traceparent_is_read_as_its_standard_says(header: str, trace: str | None) -> None:
    assert trace_id_of(header.encode()) == trace


@given(st.binary(max_size=80))
def test_any_traceparent_is_read_or_ignored(header: bytes) -> None:
    trace = trace_id_of(header)
    assert trace is None or re.fullmatch(r"[0-9a-f]{32}", trace)


@pytest.mark.parametrize("endpoint", ["localhost:4318", "grpc://x:4317", "http://"])
def test_what_is_no_collector_is_refused(endpoint: str) -> None:
    with pytest.raises(SettingsError, match="must be a collector's OTLP/HTTP URL"):
        check_endpoint(endpoint)


def test_without_the_extra_traces_are_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_endpoint("")
    check_endpoint("http://localhost:4318")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=re.escape("pip install '.[trace]'")):
        check_endpoint("http://localhost:4318")
