"""New versions come and go while requests are under way."""

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from models.repository import Repository
from tests.chaos.client import Connection, Load, closing, run
from tests.support import metric, wait_for

pytestmark = pytest.mark.chaos

NUM_RELOADS = 20
REFUSED_LOADS = 'saddlepoint_model_loads_total{model="tiny",result="refused"}'


async def reload_under_load(server: Any, change: Callable[[int], int]) -> Load:
    load = Load(server.url)
    numbers = itertools.count()
    loops = [
        asyncio.create_task(
            load.closed_loop(lambda: json.dumps({"seeds": [next(numbers) % 100]}).encode())
        )
        for _ in range(8)
    ]
    with closing(Connection(load.port)) as connection:
        for number in range(NUM_RELOADS):
            version = await asyncio.to_thread(change, number)
            async with asyncio.timeout(20):
                while (await served(connection)) != version:
                    await asyncio.sleep(0.02)
    load.going = False
    await asyncio.gather(*loops)
    return load


async def served(connection: Connection) -> int:
    answer = await connection.ask(json.dumps({"seeds": [1]}).encode())
    return int(answer.headers["x-model-version"])


def test_twenty_reloads_without_a_failed_request(
    make_bundle: Callable[..., Bundle],
    tmp_path: Path,
    start_server: Callable[..., Any],
    record: Callable[..., None],
) -> None:
    repository = Repository(tmp_path / "models")
    repository.publish("tiny", make_bundle(weights_seed=0))
    server = start_server(repository.root, "--reload-interval-s", "0.05")
    bundles = [make_bundle(weights_seed=seed) for seed in range(4)]

    refused = 0

    def change(number: int) -> int:
        """Publishes; every fifth time rolls back; every fifth a corrupt one comes first."""
        nonlocal refused
        if number % 5 == 1:
            corrupt = repository.publish("tiny", bundles[0], make_current=False)
            with corrupt.model_path.open("r+b") as model:
                model.write(b"\0\0\0\0")
            current = repository.root / "tiny" / "CURRENT"
            before = current.read_text()
            current.write_text(f"{corrupt.manifest.version}\n")
            refused += 1
            wait_for(lambda: metric(server, REFUSED_LOADS) == refused)
            current.write_text(before)
        if number % 5 == 4:
            return repository.rollback("tiny").version
        return repository.publish("tiny", bundles[number % 4]).manifest.version

    load = run(reload_under_load(server, change))
    assert load.fates == {200: len(load.answers)}
    versions = {answer.headers["x-model-version"] for answer in load.answers}
    assert len(versions) > 10
    record(
        f"6. {NUM_RELOADS} reloads, 4 of them back, 4 corrupt ones between",
        load,
        remark=f"{len(versions)} versions served; the corrupt ones refused, counted, logged",
    )
