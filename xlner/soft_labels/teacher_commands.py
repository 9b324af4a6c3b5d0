"""`xlner project` and `xlner rank-sources`: teachers made of parallel text, and which of several to choose.

What is slow to import is imported by the command that needs it.
"""

from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Annotated, TextIO

import typer

from xlner.errors import CorpusError, ModelError

SHOWN = 100  # pairs on the page of `project --show`


def project(
    source_model: Annotated[str, typer.Option(help="Model folder or hub name that tags the first column.")],
    parallel: Annotated[Path, typer.Option(metavar="FILE", help="SENTENCE<TAB>TRANSLATION on each line.")],
    out: Annotated[Path, typer.Option(help="Annotation file to write, such as de.jsonl; a summary goes beside it.")],
    encoder: Annotated[
        str, typer.Option(help="Whose hidden states align the words; default: those of the model itself.")
    ] = "",
    layer: Annotated[int, typer.Option(min=0, help="Of these hidden states, from 1; 0: the middle one.")] = 0,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Links between words of a lower score carry no entity.")
    ] = 0.4,
    max_pairs: Annotated[int, typer.Option(min=0, help="Read only so many pairs; 0: all.")] = 0,
    encoding: Annotated[str, typer.Option(help="Character encoding of the pairs; UTF-8 is written.")] = "utf-8",
    show: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Page to write: the first pairs, with lines between words.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ..., or auto.")] = "cpu",
) -> None:
    """Carry entities over to translations: annotations that teach a student, alone or beside a model."""
    from tqdm import tqdm

    from xlner.corpora.lines import existing_file
    from xlner.corpora.source import read_pairs
    from xlner.files import refuse_own_input, replaced, to_json
    from xlner.soft_labels.parallel import Projection, links_page, open_reader
    from xlner.tagger import load_tagger
    from xlner.words import WORD_SPLITTERS

    if out.suffix != ".jsonl":
        raise CorpusError(f"--out {out}: expected a name that ends with .jsonl, as that of an annotation file")
    if show and show.suffix != ".html":
        raise CorpusError(f"--show {show}: expected a name that ends with .html, as that of a page")
    # Looked at and opened first, so that a wrong path is told before a model is loaded and before the work.
    existing_file(str(parallel))
    refuse_own_input(out, [parallel], "--out")
    beside = out.with_suffix(".summary.json")
    with ExitStack() as opened:

        def to_write(path: Path) -> TextIO:
            unfinished = opened.enter_context(replaced(path))
            return opened.enter_context(unfinished.open("w", encoding="utf-8"))

        file, figures, page = to_write(out), to_write(beside), to_write(show) if show else None
        tagger = load_tagger(source_model, device=device, precision="auto")
        reader = open_reader(tagger, encoder, layer)
        projection = Projection(tagger, reader, least_score=min_score, n_shown=SHOWN if show else 0)
        pairs = islice(read_pairs(str(parallel), encoding, WORD_SPLITTERS[tagger.word_splitter]), max_pairs or None)
        summary = projection.summary
        with tqdm(unit=" pairs", disable=None, dynamic_ncols=True) as bar:
            for records in projection.records(pairs):
                file.writelines(f"{to_json(record)}\n" for record in records)
                bar.update(summary.pairs - bar.n)
        for doubt in summary.doubts():
            typer.echo(doubt, err=True)
        if not summary.entities:
            raise CorpusError(
                f"{parallel}: {source_model} finds no entity in {summary.pairs:,} sentences of the first column, so "
                "there is nothing to carry over; is that column in the language of the model?"
            )
        if not summary.records:
            left_out = ", ".join(f"{number:,}: {reason}" for reason, number in summary.left_out.most_common())
            raise CorpusError(f"{parallel}: of {summary.pairs:,} pairs none is left ({left_out})")
        about = {"source_model": source_model, "encoder": encoder or source_model, "min_score": min_score}
        figures.write(to_json(about | summary.to_json(), indent=2) + "\n")
        if page:
            title = f"The first {len(projection.shown):,} of {summary.pairs:,} pairs of {parallel}"
            page.write(links_page(projection.shown, title))
    for line in summary.lines():
        typer.echo(line)
    typer.echo(f"{out}: teacher={out}, and the sentences themselves as text={out}; {beside}: these figures")


def rank_sources(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Model folders or hub names: the teachers.")],
    target: Annotated[str, typer.Option(metavar="FILE", help="Raw text of the target language, or any corpus.")],
    data: Annotated[
        str, typer.Option(help="Folder with LANGUAGE/train of the models' languages: compare languages, too.")
    ] = "",
    sentences: Annotated[int, typer.Option(min=20, help="How many of each text are looked at.")] = 1000,
    format: Annotated[str, typer.Option(help="text, conll, jsonl, ... or auto: by the name.")] = "auto",
    encoding: Annotated[str, typer.Option(help="Character encoding of the text.")] = "utf-8",
    as_json: Annotated[bool, typer.Option("--json", help="JSON, not a table.")] = False,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ..., or auto.")] = "cpu",
) -> None:
    """Rank teachers for a language without labels: by sureness, agreement, and likeness of languages."""
    from xlner.corpora.source import read_corpus
    from xlner.files import to_json
    from xlner.models.folder import read_settings
    from xlner.soft_labels.rank import rank, source_likeness
    from xlner.tagger import load_tagger
    from xlner.words import unicode_words

    if twice := sorted({name for name in models if models.count(name) > 1}):
        raise ModelError(f"{', '.join(twice)}: given twice; a model agrees with itself, which tells nothing")
    text = read_corpus(target, format=format, scheme="ignore", encoding=encoding, split_text=unicode_words)
    words = [sentence.words for sentence in islice(text, sentences)]
    taggers = {name: load_tagger(name, device=device, precision="auto") for name in models}
    likenesses = source_likeness(models, data, words, sentences, taggers[models[0]].device) if data else None
    found = rank(taggers, [read_settings(name).language for name in models], words, likenesses)
    if as_json:
        typer.echo(to_json([one.to_json() for one in found], indent=2))
        return
    width = max(5, *(len(name) for name in models))
    typer.echo(f"{'model':{width}}  language  sureness  agreement  likeness  entities per 1,000 words")
    for one in found:
        agreement = "-" if one.agreement is None else f"{one.agreement:.2f}"
        likeness = "-" if one.likeness is None else f"{one.likeness:.3f}"
        typer.echo(
            f"{one.model:{width}}  {one.language or '-':8}  {one.sureness:8.3f}  {agreement:>9}  {likeness:>8}  "
            f"{one.entities:.1f}"
        )
