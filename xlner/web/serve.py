"""The HTTP service of `xlner serve`: tagging, comparing, metrics, and the page.

No text is written to any log, nor sent back in an error. Errors are JSON, `{"detail": ...}`, as FastAPI has them.
"""

import asyncio
import math
import os
import socket
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Config, Server
from uvicorn.supervisors import Multiprocess

from xlner import __version__
from xlner.corpora.source import align
from xlner.errors import CorpusError, ModelError, RunError, StoppedError, has_half_characters
from xlner.tagger import Tagger, entity_at, load_tagger
from xlner.tags import Span
from xlner.web.agreement import MeanAgreement, Measured, marks, mean_agreement, measure
from xlner.web.annotations import AnnotationFile, ChangedError, TextLine, lines_of
from xlner.web.batching import Batcher, QueueFullError
from xlner.web.messages import (
    CompareRequest,
    CompareResponse,
    FindRequest,
    FindResponse,
    Health,
    ModelList,
    Offsets,
    OtherEntity,
    SaveRequest,
    SaveResponse,
    TagRequest,
    TagResponse,
)
from xlner.words import Entity, WordOffsets, split_words

PAGE = Path(__file__).parent / "page"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
CONNECTIONS = 1000  # at once, of one process; more are answered 503 by uvicorn
WEIGHTS = (".onnx", ".safetensors", ".data")  # files of an exported folder
_PROMETHEUS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_NOT_SAVED = (ChangedError, CorpusError, RunError)


# The service.


@dataclass(frozen=True)
class ServeSettings:
    """What is served, and within which limits."""

    models: tuple[str, ...]  # MODEL or NAME=MODEL
    device: str = "cpu"
    queue: int = 64  # requests that may wait
    max_chars: int = 100_000  # of a text
    max_texts: int = 256  # of a request
    max_body: int = 2_000_000  # bytes
    timeout: float = 60.0  # seconds
    origins: tuple[str, ...] = ()  # whose pages may call
    hosts: tuple[str, ...] = ("*",)  # names that requests may call this server by
    annotations: Path | None = None  # where corrections are saved; None: nowhere
    browser: tuple[str, ...] = ()  # FOLDER or NAME=FOLDER of `xlner export --web`


@dataclass(frozen=True)
class ServedModel:
    """A tagger with what is told of it; None where it cannot be known."""

    name: str
    tagger: Tagger
    parameters: int | None  # numbers among its weights
    bytes: int  # of its weights


def headers_of(settings: ServeSettings) -> list[tuple[str, str]]:
    """Of every answer: the page runs no script but its own, and graphs only where there is a model for the browser."""
    scripts = "script-src 'self' 'wasm-unsafe-eval'" if settings.browser else "script-src 'self'"
    return [(name, value.replace("script-src 'self'", scripts)) for name, value in HEADERS.items()]


class _Metrics:
    """What Prometheus reads; in files of one folder where there are several processes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kept: dict[str, Any] = {"registry": self.registry}
        if _PROMETHEUS_FOLDER not in os.environ:
            ProcessCollector(registry=self.registry)
        self.requests = Counter("xlner_requests", "Requests answered.", ["path", "status"], **kept)
        self.seconds = Histogram("xlner_request_seconds", "Time of a request.", ["path"], **kept)
        self.batch_seconds = Histogram("xlner_batch_seconds", "Time of a batch in the model.", **kept)
        sizes = [1, 2, 4, 8, 16, 32, 64, 128, 256]
        self.batch_texts = Histogram("xlner_batch_texts", "Texts computed together.", buckets=sizes, **kept)
        self.waiting = Gauge("xlner_waiting", "Requests in the queue.", multiprocess_mode="livesum", **kept)

    def told(self) -> bytes:
        """In Prometheus' text format."""
        registry = self.registry
        if _PROMETHEUS_FOLDER in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def batch(self, texts: int, seconds: float) -> None:
        """Count a batch of that many texts; other work has none."""
        self.batch_seconds.observe(seconds)
        if texts:
            self.batch_texts.observe(texts)


def open_models(names: Sequence[str], device: str = "cpu") -> dict[str, ServedModel]:
    """Open models, by the names that requests use.

    Args:
        names: MODEL or NAME=MODEL. Without a name it is that of the folder; of its parent where that is `model`.
        device: As for `load_tagger`.

    Raises:
        ModelError: If a model cannot be opened, or two have one name.
    """
    found = {}
    for name, folder in by_names(names).items():
        tagger = load_tagger(folder, device=device)
        found[name] = ServedModel(name, tagger, *_size(tagger))
    return found


def by_names(given: Iterable[str]) -> dict[str, str]:
    """Models by the names that are given, as NAME=MODEL, or else those of their folders.

    Raises:
        ModelError: If two have one name.
    """
    found: dict[str, str] = {}
    for one in given:
        name, equals, folder = one.partition("=")
        if not equals or Path(one).exists():
            name, folder = _short_name(one), one
        if name in found:
            raise ModelError(f"two models are named {name!r}; give each another name: NAME={folder}")
        found[name] = folder
    return found


def browser_models(settings: ServeSettings) -> dict[str, Path]:
    """The folders of what the page can have the browser run, by name.

    Raises:
        ModelError: If a folder is none of `xlner export --web`, or two models have one name.
    """
    served_first = list(by_names((*settings.models, *settings.browser)).items())
    found = {name: Path(folder) for name, folder in served_first[len(settings.models) :]}
    for path in found.values():
        if missing := [file for file in ("tagger.js", "student.json") if not (path / file).is_file()]:
            raise ModelError(f"--browser {path}: no {missing[0]} in it; expected what xlner export MODEL --web wrote")
    return found


def _bytes_of_weights(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in WEIGHTS)


def _short_name(folder: str) -> str:
    parts = [part for part in Path(folder).parts if part not in (os.sep, "..")]
    own = [part for part in parts if part != "model"] or parts or [folder]
    return own[-1] if Path(folder).exists() else folder


def _size(tagger: Tagger) -> tuple[int | None, int]:
    """Parameters and bytes of the weights: in memory for a network of torch, else of the files in its folder."""
    try:
        weights = list(tagger.model.parameters())
    except ModelError:  # exported: a graph, or a table
        return None, _bytes_of_weights(Path(tagger.opened_from))
    return sum(part.numel() for part in weights), sum(part.numel() * part.element_size() for part in weights)


def make_app(settings: ServeSettings) -> FastAPI:
    """The service, whose models are opened here.

    Raises:
        ModelError: If a model cannot be opened.
    """
    service = _Service(settings)
    app = FastAPI(
        title="xlner",
        version=__version__,
        description="Named entities in text.",
        lifespan=service.lifespan,
        docs_url=None,  # that page loads scripts of other servers; page/docs stands for it
        redoc_url=None,
    )
    for problem in (RequestValidationError, QueueFullError, TimeoutError, ModelError, *_NOT_SAVED):
        app.add_exception_handler(problem, service.refuse)
    app.post("/v1/tag", response_model=TagResponse)(service.tag)
    app.post("/v1/compare", response_model=CompareResponse)(service.compare)
    app.get("/v1/models", response_model=ModelList)(service.list_models)
    app.post("/v1/annotations", response_model=SaveResponse)(service.save_annotations)
    app.post("/v1/annotations/find", response_model=FindResponse)(service.find_annotations)
    app.get("/healthz", response_model=Health)(service.health)
    app.get("/metrics", response_class=PlainTextResponse)(service.tell_metrics)
    for number, folder in enumerate(service.browser.values()):
        app.mount(f"/browser/{number}", StaticFiles(directory=folder))
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    # The last one added is the first to see a request.
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["content-type"],
        )
    app.add_middleware(_BodyLimit, max_bytes=settings.max_body, seconds=settings.timeout)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=settings.hosts, www_redirect=False)
    app.add_middleware(_Measured, metrics=service.metrics)
    return app


class _Service:
    """The models, the queue before them, and what is answered; the docstrings of answers are those of the API."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self.browser = browser_models(settings)
        self._in_browser = [
            {"name": name, "folder": f"browser/{number}/", "bytes": _bytes_of_weights(folder)}
            for number, (name, folder) in enumerate(self.browser.items())
        ]
        self._models = open_models(settings.models, settings.device)
        self._file = None if settings.annotations is None else AnnotationFile(settings.annotations)
        self.metrics = _Metrics()
        self._batcher: Batcher
        self._running: asyncio.Task[None]

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self._batcher = Batcher(limit=self._settings.queue, on_batch=self.metrics.batch)
        self._running = asyncio.create_task(self._batcher.run())
        yield
        self._running.cancel()

    async def refuse(self, request: Request, problem: Exception) -> JSONResponse:
        if isinstance(problem, RequestValidationError):  # told without the input, which FastAPI would repeat
            told = [{"loc": error["loc"], "msg": error["msg"], "type": error["type"]} for error in problem.errors()]
            return JSONResponse({"detail": told}, 422)
        if isinstance(problem, QueueFullError):
            detail = f"{self._settings.queue} requests wait already; try again in {problem.retry_after} s"
            return JSONResponse({"detail": detail}, 429, {"Retry-After": str(problem.retry_after)})
        if isinstance(problem, TimeoutError):
            detail = f"not done within {self._settings.timeout:g} s; send less text, or try again later"
            return JSONResponse({"detail": detail}, 503, {"Retry-After": "5"})
        if isinstance(problem, ChangedError):
            return JSONResponse({"detail": "other corrections of this text were saved meanwhile; find them first"}, 409)
        if isinstance(problem, CorpusError):  # told without what the file holds
            detail = f"{self._settings.annotations} cannot be read as annotations; xlner check-data tells where"
            return JSONResponse({"detail": detail}, 500)
        return JSONResponse({"detail": str(problem)}, 507 if isinstance(problem, RunError) else 500)

    async def tag(self, asked: TagRequest) -> Response:
        """Find the entities of one text, or of each of several."""
        if (asked.text is None) == (asked.texts is None):
            raise HTTPException(422, "expected either text or texts")
        texts = [asked.text] if asked.text is not None else asked.texts or []
        _check_texts(texts, self._settings)
        model = self._named(asked.model or next(iter(self._models)))
        wanted = _known_types(model, asked.types)
        async with asyncio.timeout(self._settings.timeout):
            found = await self._batcher.tag(model.tagger, texts)
        results = []
        for text, entities in zip(texts, found, strict=True):
            counted = _counter(text, asked.offsets)
            kept = [entity for entity in entities if entity.score >= asked.threshold and entity.label in wanted]
            results.append({"entities": [_told(entity, counted) for entity in kept]})
        return JSONResponse({"model": model.name, "results": results})

    async def compare(self, asked: CompareRequest) -> Response:
        """Let several models tag the same words, and compare what they find, how sure they are, and how fast."""
        _check_texts([asked.text], self._settings)
        chosen = [self._named(name) for name in dict.fromkeys(asked.models or self._models)]
        places = split_words(asked.text, chosen[0].tagger.word_splitter)
        words = [asked.text[start:end] for start, end in places]
        async with asyncio.timeout(self._settings.timeout):
            measured = [
                await self._batcher.alone(partial(measure, model.tagger, words, asked.rounds)) for model in chosen
            ]
        return JSONResponse(_comparison(asked, places, chosen, measured))

    async def list_models(self) -> Response:
        """The models that are served, and the limits of a request."""
        described = [
            {"name": model.name, "types": model.tagger.types, "parameters": model.parameters, "bytes": model.bytes}
            for model in self._models.values()
        ]
        limits = {
            "characters": self._settings.max_chars,
            "texts": self._settings.max_texts,
            "bytes": self._settings.max_body,
            "seconds": self._settings.timeout,
        }
        content = {
            "models": described,
            "browser": self._in_browser,
            "limits": limits,
            "annotations": self._file is not None,
        }
        return JSONResponse(content)

    async def find_annotations(self, asked: FindRequest) -> Response:
        """What is saved of a text: its sentences, their words, and the corrected entities of each."""
        file, lines = self._file_and_lines(asked.text)
        async with asyncio.timeout(self._settings.timeout):
            said, version = await asyncio.to_thread(file.said_of, lines)
            types = await asyncio.to_thread(self._types, file)
        counted = _counter(asked.text, asked.offsets)
        sentences = []
        for line, one in zip(lines, said, strict=True):
            words = [[counted(line.start + place) for place in word] for word in line.words]
            sentence: dict[str, object] = {"start": counted(line.start), "end": counted(line.start + len(line.text))}
            sentence |= {"words": words, "entities": None}
            if one is not None:
                spans = align(one, [line.text[start:end] for start, end in line.words]).spans
                sentence["entities"] = [
                    {"start": words[first][0], "end": words[end - 1][1], "label": label}
                    for label, first, end, _ in spans
                ]
            sentences.append(sentence)
        return JSONResponse({"version": version, "types": types, "sentences": sentences})

    async def save_annotations(self, asked: SaveRequest) -> Response:
        """Have the corrected entities of a text on the disk, before the answer comes."""
        file, lines = self._file_and_lines(asked.text)
        async with asyncio.timeout(self._settings.timeout):
            types = await asyncio.to_thread(self._types, file)
            spans = _spans_of_lines(asked, lines, types)
            saved, version = await asyncio.to_thread(file.save, lines, spans, types, asked.version)
        return JSONResponse({"saved": saved, "version": version})

    def _file_and_lines(self, text: str) -> tuple[AnnotationFile, list[TextLine]]:
        if self._file is None:
            raise HTTPException(404, "no corrections are saved here; start with xlner serve --annotations FILE.jsonl")
        _check_texts([text], self._settings)
        return self._file, lines_of(text, next(iter(self._models.values())).tagger.word_splitter)

    def _types(self, file: AnnotationFile) -> list[str]:
        """What an entity may be: what a model knows, or a record of the file."""
        return sorted(file.types().union(*(model.tagger.types for model in self._models.values())))

    async def health(self) -> Response:
        """200 while requests are answered."""
        ends = self._running.done()
        state = {"status": "ending" if ends else "ok", "models": len(self._models), "waiting": self._batcher.n_waiting}
        return JSONResponse(state, 503 if ends else 200)

    async def tell_metrics(self) -> Response:
        """Counts and times for Prometheus."""
        self.metrics.waiting.set(self._batcher.n_waiting)
        return Response(self.metrics.told(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def _named(self, name: str) -> ServedModel:
        if name not in self._models:
            raise HTTPException(404, f"no such model; expected one of: {', '.join(self._models)}")
        return self._models[name]


def _check_texts(texts: Sequence[str], settings: ServeSettings) -> None:
    if len(texts) > settings.max_texts:
        raise HTTPException(413, f"found {len(texts):,} texts; at most {settings.max_texts:,} are taken at a time")
    for number, text in enumerate(texts):
        if has_half_characters(text):
            raise HTTPException(422, f"text {number} (from 0) holds a lone surrogate, which is half of a character")
        if len(text) > settings.max_chars:
            raise HTTPException(
                413,
                f"text {number} (from 0) has {len(text):,} characters; at most {settings.max_chars:,} are taken",
            )


def _known_types(model: ServedModel, types: Collection[str] | None) -> Collection[str]:
    if types is None:
        return model.tagger.types
    if unknown := set(types) - set(model.tagger.types):
        known = ", ".join(model.tagger.types)
        raise HTTPException(422, f"types: {len(unknown)} of them {model.name} does not know; it knows {known}")
    return types


def _spans_of_lines(asked: SaveRequest, lines: Sequence[TextLine], types: Collection[str]) -> list[list[Span]]:
    """The entities of each line, in its words and in order; HTTPException if they are none of them."""
    counted = _counter(asked.text, asked.offsets)
    words = [(number, word) for number, line in enumerate(lines) for word in range(len(line.words))]
    places = [line.start + place for line in lines for word in line.words for place in word]
    starts, ends = (dict(zip(map(counted, places[first::2]), words, strict=True)) for first in (0, 1))
    found: list[list[Span]] = [[] for _ in lines]
    for number, (start, end, label) in enumerate((one.start, one.end, one.label) for one in asked.entities):
        wrong = f"entity {number} (from 0) "
        if not 0 <= start < end <= counted(len(asked.text)):
            raise HTTPException(422, f"{wrong}is outside the text: {start} to {end}")
        if label not in types:
            raise HTTPException(422, f"{wrong}is of an unknown type; expected one of: {', '.join(types)}")
        if start not in starts or end not in ends:
            raise HTTPException(422, f"{wrong}begins or ends at no word: {start} to {end}")
        (line, first), (last_line, last) = starts[start], ends[end]
        if line != last_line:
            raise HTTPException(422, f"{wrong}goes over the end of a line, and so of a sentence: {start} to {end}")
        found[line].append(Span(label, first, last + 1))
    same: dict[str, list[Span]] = {}
    for number, spans in enumerate(found):
        spans.sort(key=lambda span: span.start)
        if any(after.start < before.end for before, after in pairwise(spans)):
            raise HTTPException(422, f"sentence {number} (from 0) has entities that overlap")
        if same.setdefault(lines[number].key, spans) != spans:
            raise HTTPException(422, f"sentence {number} (from 0) stands twice in the text, with other entities")
    return found


def _counter(text: str, offsets: Offsets) -> Callable[[int], int]:
    """From a place in a text, in characters, to the number that was asked for."""
    if offsets == "characters" or text.isascii():
        return int
    characters = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    units = np.concatenate([[0], np.cumsum(1 + (characters > 0xFFFF).astype(np.int64))])
    return lambda place: int(units[place])


def _told(entity: Entity, counted: Callable[[int], int]) -> dict[str, str | int | float]:
    """The content of a `FoundEntity`."""
    return entity.to_dict() | {"start": counted(entity.start), "end": counted(entity.end)}


def _comparison(
    asked: CompareRequest, places: WordOffsets, models: Sequence[ServedModel], measured: Sequence[Measured]
) -> dict[str, object]:
    """The content of a `CompareResponse`."""
    counted = _counter(asked.text, asked.offsets)
    kept = [[(span, score) for span, score in model.entities if score >= asked.threshold] for model in measured]
    others = [[one for one in other.entities if one.score >= asked.threshold] for other in asked.others]
    # From what the request counts in, back to places of the text.
    place_of = {counted(place): place for place in range(len(asked.text) + 1)} if others else {}
    touched = [_spans_touched(found, number, places, place_of) for number, found in enumerate(others)]
    of_all = marks([*([span for span, _ in entities] for entities in kept), *touched])
    compared = []
    for model, result, entities, of_entities in zip(models, measured, kept, of_all[: len(models)], strict=True):
        told = [
            _told(entity_at(asked.text, places, span, score), counted) | {"mark": mark}
            for (span, score), mark in zip(entities, of_entities, strict=True)
        ]
        median = float(np.median(result.seconds))
        agreement = None if model is models[0] else mean_agreement(measured[0], result)
        compared.append(
            {
                "model": model.name,
                "entities": told,
                "seconds": {
                    "median": median,
                    "p95": float(np.percentile(result.seconds, 95)),
                    "runs": len(result.seconds),
                },
                "words_per_second": len(places) / max(median, 1e-9),
                "parameters": model.parameters,
                "bytes": model.bytes,
                "agreement": None if agreement is None else _agreement(*agreement),
            }
        )
    for other, given, of_given in zip(asked.others, others, of_all[len(models) :], strict=True):
        told = [
            {"text": asked.text[place_of[one.start] : place_of[one.end]], **one.model_dump(), "mark": mark}
            for one, mark in zip(given, of_given, strict=True)
        ]
        compared.append(dict.fromkeys(_OF_MODELS) | {"model": other.model, "entities": told})
    return {"words": len(places), "models": compared}


_OF_MODELS = ("seconds", "words_per_second", "parameters", "bytes", "agreement")


def _spans_touched(
    found: Sequence[OtherEntity], other: int, places: Sequence[tuple[int, int]], place_of: Mapping[int, int]
) -> list[Span]:
    """The words that each entity touches, as a span; HTTPException where it touches none, or is outside the text."""
    starts, ends = [start for start, _ in places], [end for _, end in places]
    spans = []
    for number, one in enumerate(found):
        start, end = place_of.get(one.start), place_of.get(one.end)
        if start is None or end is None or start >= end:
            raise HTTPException(422, f"others {other}, entity {number} (from 0) is no part of the text")
        first, last = bisect_right(ends, start), bisect_left(starts, end)
        if first >= last:
            raise HTTPException(422, f"others {other}, entity {number} (from 0) holds no word")
        spans.append(Span(one.label, first, last))
    return spans


def _agreement(all_words: MeanAgreement, entity_words: MeanAgreement) -> dict[str, object]:
    return {"all_words": all_words._asdict(), "entity_words": entity_words._asdict()}


class _BodyLimit:
    """Refuses a body that is too large, and one that does not arrive in time."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, seconds: float) -> None:
        self._app, self._max_bytes, self._seconds = app, max_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        n_bytes, is_complete = 0, False
        deadline = time.monotonic() + self._seconds
        announced = dict(scope["headers"]).get(b"content-length", b"")

        async def receive_within_limits() -> Message:
            nonlocal n_bytes, is_complete
            if announced.isdigit() and int(announced) > self._max_bytes:
                raise self._too_large()
            if is_complete:  # what is waited for now is the end of the connection
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), deadline - time.monotonic())
            except TimeoutError:
                raise HTTPException(408, f"the request did not arrive within {self._seconds:g} s") from None
            n_bytes += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if n_bytes > self._max_bytes:
                raise self._too_large()
            return message

        await self._app(scope, receive_within_limits, send)

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"at most {self._max_bytes:,} bytes are taken in a request")


class _Measured:
    """Counts requests, and how long they take."""

    def __init__(self, app: ASGIApp, *, metrics: _Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting_status)
        finally:
            # Paths of routes alone: whatever else is asked for would grow the table without end.
            path = getattr(scope.get("route"), "path", "") or "other"
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - start)


def run(settings: ServeSettings, *, host: str, port: int, workers: int = 1) -> None:
    """Serve until SIGTERM or Ctrl-C; what is being answered then is finished first.

    Raises:
        ModelError: If a model cannot be opened.
        CorpusError: If the file for corrections holds other things.
        RunError: If nothing can listen at that address, or corrections cannot be saved.
        StoppedError: After Ctrl-C.
    """
    listening = _listen(host, port)
    browser_models(settings)
    if settings.annotations is not None:
        AnnotationFile(settings.annotations).check()
    if _is_loopback(host):
        # Or a page of elsewhere could call a name of its own that leads here.
        settings = replace(settings, hosts=("localhost", "127.0.0.1", "[::1]", "::1", host))
    address = f"[{host}]" if ":" in host else host
    url = f"http://{address}:{listening.getsockname()[1]}/"
    print(f"{url} once {', '.join(settings.models)} can be used; {url}docs tells the API", file=sys.stderr)  # noqa: T201
    config = Config(
        partial(make_app, settings),
        factory=True,
        workers=workers,
        access_log=False,  # its lines hold what stands behind the ? of an address
        server_header=False,
        ws="none",
        headers=headers_of(settings),
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=math.ceil(settings.timeout),
        timeout_worker_healthcheck=300,  # a worker that opens large models answers late
    )
    try:
        if workers == 1:
            config.load()  # before the server, so that a model that cannot be opened is told as such
            Server(config).run([listening])
            return
        # A process that fails at its start would fail again and again, so that one tries first.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as trial:
            trial.submit(_try_models, settings).result()
        with tempfile.TemporaryDirectory() as folder:
            os.environ[_PROMETHEUS_FOLDER] = folder
            Multiprocess(config, [listening]).run()
    except KeyboardInterrupt:
        raise StoppedError("", 130) from None


def _try_models(settings: ServeSettings) -> None:
    open_models(settings.models, settings.device)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address; nobody is answered before a server listens."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except (OSError, OverflowError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise RunError(
            f"{host}:{port}: cannot listen there: {reason}; another port: --port, any that is free: --port 0"
        ) from problem
    listening.set_inheritable(True)
    return listening
