"""What a worker answers: a receipt, or why there is none, in words of the right kind."""

from pathlib import Path

import pytest

from models.bundle import Bundle
from models.errors import BundleError
from serving.bulk.errors import TargetError
from serving.bulk.executors.ray_data import check_seen_here
from serving.bulk.maker import Answerer, Done, Failure, Job, Work
from serving.bulk.plan import shards
from serving.bulk.storage.addresses import open_store
from tests.serving.bulk.conftest import prepared


@pytest.fixture
def job(grey: Bundle, tmp_path: Path) -> Job:
    return Job(prepared(grey, "--count", "8").plan, open_store(str(tmp_path)))


@pytest.fixture
def work(grey: Bundle) -> Work:
    ready = prepared(grey, "--count", "8")
    return Work(next(shards(ready.plan, ready.seeds, ready.listed)))


def test_whatever_goes_wrong_is_an_answer_and_the_next_shard_is_made(
    grey: Bundle, job: Job, work: Work
) -> None:
    errors: list[Exception] = [
        BundleError("no such model"),
        TargetError("no such place"),
        ZeroDivisionError("unforeseen"),
    ]

    def open_bundle() -> Bundle:
        if errors:
            raise errors.pop(0)
        return grey

    answer = Answerer(job, open_bundle, "cpu")
    assert answer(work) == Failure("other", "no such model")
    assert answer(work) == Failure("target", "no such place")
    assert answer(work) == Failure("other", "shard 0: ZeroDivisionError: unforeseen")
    done = answer(work)
    assert isinstance(done, Done)
    assert done.made


def test_a_shard_that_was_written_on_another_machine_is_named(
    grey: Bundle, job: Job, work: Work, tmp_path: Path
) -> None:
    done = Answerer(job, lambda: grey, "cpu")(work)
    assert isinstance(done, Done)
    check_seen_here(done.receipt, job.store)
    elsewhere = open_store(str(tmp_path / "elsewhere"))
    with pytest.raises(TargetError, match="shard 0 was made, but isn't there; a folder must be"):
        check_seen_here(done.receipt, elsewhere)
