"""Requests of many clients computed together: a bounded queue before one thread that runs the models.

While the thread computes, requests gather; the next batch takes all that wait for one model. So a lone client
waits for nobody, and many share their forward passes.
"""

import asyncio
import logging
import math
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from xlner.errors import ModelError
from xlner.tagger import Tagger

# What a batch takes at most from several requests; it bounds how long the next one waits.
BATCH_TEXTS = 256
BATCH_CHARS = 50_000
# Clients that were answered together ask again one after the other: that long the next batch waits for them, as a share
# of the last one's time, and in seconds at most. Behind a lone request nothing waits.
GATHERING, LONGEST_GATHERING = 0.1, 0.02
LONGEST_ADVICE = 60  # seconds, of Retry-After

Answer = TypeVar("Answer")
_log = logging.getLogger("xlner")


class QueueFullError(Exception):
    """So many requests wait that one more is refused; `retry_after` is when to come again, in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


@dataclass(eq=False)
class _Job:
    """Texts for a tagger, or any other work for the thread, which then runs alone."""

    texts: Sequence[str]
    tagger: Tagger | None
    work: Callable[[], Any] | None
    answer: "asyncio.Future[Any]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """The queue and its thread; belongs to one event loop, in which `run` must be a task."""

    def __init__(self, *, limit: int, on_batch: Callable[[int, float], None] = lambda texts, seconds: None) -> None:
        """Make an empty queue.

        Args:
            limit: Requests that may wait; those being computed are not counted.
            on_batch: Told the number of texts and the seconds of each batch.
        """
        self._limit = limit
        self._on_batch = on_batch
        self._waiting: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tagger")
        self._seconds_per_job = 0.0
        self._gathering = 0.0  # seconds

    @property
    def n_waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    async def tag(self, tagger: Tagger, texts: Sequence[str]) -> list[Any]:
        """What `tagger.tag_batch(texts)` gives, computed together with what others ask.

        A caller that is cancelled gives its place up.

        Raises:
            QueueFullError: If the queue is full.
            ModelError: If the model fails.
        """
        return cast(list[Any], await self._answer(_Job(texts, tagger, None)))

    async def alone(self, work: Callable[[], Answer]) -> Answer:
        """What a function gives, which runs while no model computes anything else; errors as for `tag`."""
        return cast(Answer, await self._answer(_Job((), None, work)))

    async def run(self) -> None:
        """Compute until cancelled."""
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting:
                    await asyncio.sleep(self._gathering)
                    if self._waiting:  # who asked may have gone meanwhile
                        await self._compute(self._next_batch())
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, job: _Job) -> Any:
        if len(self._waiting) >= self._limit:
            soon = math.ceil(self._seconds_per_job * len(self._waiting))
            raise QueueFullError(min(max(soon, 1), LONGEST_ADVICE))
        self._waiting.append(job)
        self._arrived.set()
        try:
            return await job.answer
        finally:
            if job in self._waiting:  # whoever asked has gone
                self._waiting.remove(job)

    def _next_batch(self) -> list[_Job]:
        """The first job, and those behind it that fit beside it."""
        first = self._waiting.popleft()
        batch = [first]
        if first.tagger is None:
            return batch
        n_texts, n_chars = len(first.texts), sum(map(len, first.texts))
        for job in [job for job in self._waiting if job.tagger is first.tagger]:
            n_texts, n_chars = n_texts + len(job.texts), n_chars + sum(map(len, job.texts))
            if n_texts > BATCH_TEXTS or n_chars > BATCH_CHARS:
                break
            self._waiting.remove(job)
            batch.append(job)
        return batch

    async def _compute(self, batch: Sequence[_Job]) -> None:
        start = time.perf_counter()
        computing = asyncio.get_running_loop().run_in_executor(self._thread, _results, batch)
        await asyncio.wait([computing])
        problem = computing.exception()
        if problem is not None and len(batch) > 1:  # of one request; the others shall not suffer from it
            for job in batch:
                await self._compute([job])
            return
        seconds = time.perf_counter() - start
        self._seconds_per_job = 0.8 * self._seconds_per_job + 0.2 * seconds / len(batch)
        self._gathering = min(GATHERING * seconds, LONGEST_GATHERING) if len(batch) > 1 else 0.0
        self._on_batch(sum(len(job.texts) for job in batch), seconds)
        results = computing.result() if problem is None else [None]
        for job, found in zip(batch, results, strict=True):
            if job.answer.done():  # cancelled meanwhile
                continue
            if problem is None:
                job.answer.set_result(found)
            else:
                job.answer.set_exception(_without_text(problem))


def _results(batch: Sequence[_Job]) -> list[Any]:
    """What each job of a batch asks for; runs in the thread."""
    if batch[0].tagger is None:
        return [job.work() for job in batch if job.work is not None]
    found = iter(batch[0].tagger.tag_batch([text for job in batch for text in job.texts]))
    return [[next(found) for _ in job.texts] for job in batch]


def _without_text(problem: BaseException) -> ModelError:
    """An error that may be told and logged: the message of an unexpected one could quote what was tagged."""
    if isinstance(problem, ModelError):
        return problem
    name = type(problem).__name__
    _log.error("%s while tagging:\n%s", name, "".join(traceback.format_tb(problem.__traceback__)))
    return ModelError(f"the model failed by {name}; the server's log tells where")
