import asyncio
import threading

import pytest

from xlner.errors import ModelError
from xlner.web.batching import BATCH_TEXTS, Batcher, QueueFullError


class CountingTagger:
    """Gives each text's length; waits at `gate`, so that requests gather behind the first one."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()

    def tag_batch(self, texts):
        self.batches.append(list(texts))
        assert self.gate.wait(20)
        if "bad" in texts:
            raise KeyError("bad")
        return [len(text) for text in texts]


def running(job, **options):
    """Runs `job(batcher)` while its queue is served."""

    async def run():
        batcher = Batcher(**{"limit": 100, **options})
        serving = asyncio.create_task(batcher.run())
        try:
            async with asyncio.timeout(20):
                return await job(batcher)
        finally:
            serving.cancel()

    return asyncio.run(run())


async def behind_the_first(batcher, tagger, *requests):
    """Sends requests while a first one is computed; their answers, or errors."""
    tagger.gate.clear()
    first = asyncio.create_task(batcher.tag(tagger, ["first"]))
    while not tagger.batches:
        await asyncio.sleep(0.001)
    tasks = [asyncio.create_task(batcher.tag(tagger, request)) for request in requests]
    await asyncio.sleep(0.01)
    tagger.gate.set()
    return [await first, *await asyncio.gather(*tasks, return_exceptions=True)][1:]


def test_requests_that_wait_are_computed_together_and_each_gets_its_own_answer():
    tagger = CountingTagger()

    answers = running(lambda batcher: behind_the_first(batcher, tagger, ["a"], ["bb", "ccc"], []))

    assert answers == [[1], [2, 3], []]
    assert tagger.batches == [["first"], ["a", "bb", "ccc"]]


def test_a_batch_is_bounded_but_a_request_is_never_split():
    tagger = CountingTagger()
    many = ["x"] * (BATCH_TEXTS - 1)

    running(lambda batcher: behind_the_first(batcher, tagger, many, ["y", "z"], ["w"]))

    assert [len(batch) for batch in tagger.batches] == [1, BATCH_TEXTS - 1, 3]


def test_requests_of_other_models_are_not_mixed():
    one, other = CountingTagger(), CountingTagger()

    async def both(batcher):
        one.gate.clear()
        tasks = [asyncio.create_task(batcher.tag(tagger, ["a"])) for tagger in (one, other, one)]
        await asyncio.sleep(0.01)
        one.gate.set()
        return await asyncio.gather(*tasks)

    assert running(both) == [[1], [1], [1]]
    assert sum(map(len, one.batches)) == 2
    assert other.batches == [["a"]]


def test_a_request_that_fails_leaves_those_beside_it_alone_and_is_told_without_its_text(caplog):
    tagger = CountingTagger()

    good, bad, also_good = running(lambda batcher: behind_the_first(batcher, tagger, ["a"], ["bad"], ["bb"]))

    assert (good, also_good) == ([1], [2])
    assert isinstance(bad, ModelError)
    assert str(bad) == "the model failed by KeyError; the server's log tells where"
    assert "'bad'" not in caplog.text
    assert "KeyError while tagging" in caplog.text


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again():
    tagger = CountingTagger()

    answers = running(lambda batcher: behind_the_first(batcher, tagger, ["a"], ["b"], ["c"]), limit=2)

    assert answers[:2] == [[1], [1]]
    assert isinstance(answers[2], QueueFullError)
    assert 1 <= answers[2].retry_after <= 60


def test_who_gives_up_leaves_the_queue():
    tagger = CountingTagger()

    async def give_up(batcher):
        tagger.gate.clear()
        first = asyncio.create_task(batcher.tag(tagger, ["first"]))
        while not tagger.batches:
            await asyncio.sleep(0.001)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await batcher.tag(tagger, ["late"])
        waiting = batcher.n_waiting
        tagger.gate.set()
        return waiting, await first

    assert running(give_up) == (0, [5])
    assert tagger.batches == [["first"]]


def test_other_work_runs_alone_in_the_order_it_came():
    told = []

    answer = running(lambda batcher: batcher.alone(lambda: "done"), on_batch=lambda texts, seconds: told.append(texts))

    assert answer == "done"
    assert told == [0]
