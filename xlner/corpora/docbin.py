"""spaCy's DocBin files (`.spacy`), read and written with spaCy itself: the extra `spacy`.

spaCy holds a whole DocBin in memory; corpora larger than that are kept in several files.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xlner.corpora.problems import Located, by_word
from xlner.corpora.schemes import UNLABELLED, TagReader
from xlner.errors import CorpusError
from xlner.tags import OUTSIDE, Span
from xlner.words import Sentence

if TYPE_CHECKING:
    from spacy.tokens import Doc, DocBin, Token
    from spacy.tokens import Span as SpacySpan
    from spacy.vocab import Vocab


# What spaCy raises at damaged files.
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, OverflowError, zlib.error)


def read_docbin(path: Path, *, tag_reader: TagReader) -> Iterator[Located]:
    """The sentences of a DocBin, or its documents where they have no sentences; tokens of white space are left out.

    Raises:
        CorpusError: If spaCy is not installed, or the file is no DocBin.
    """
    doc_bin, vocab = _spacy()
    try:
        docs = doc_bin().from_disk(path).get_docs(vocab())
    except _DAMAGE as problem:
        raise CorpusError(f"{path}: spaCy cannot read it as a DocBin ({problem})") from problem
    return _sentences(path, docs, tag_reader)


def docbin_bytes(sentences: Iterable[Sentence]) -> bytes:
    """A DocBin of sentences, one a document."""
    doc_bin, vocab = _spacy()
    from spacy.tokens import Doc

    store, words_only = doc_bin(store_user_data=False), vocab()
    for number, (words, tags) in enumerate(sentences, 1):
        if blank := next((word for word in words if word.isspace()), ""):
            raise CorpusError(f"sentence {number}: the word {blank!r} is white space, which spaCy takes for no word")
        store.add(Doc(words_only, words=list(words), ents=None if tags is None else list(tags)))
    return bytes(store.to_bytes())


def tagged_docbin(tagged: Iterable[tuple[Sequence[str], Sequence[bool], Sequence[tuple[Span, float]]]]) -> bytes:
    """A DocBin of tagged texts, one a document.

    Args:
        tagged: Words, whether a space follows each, and entities with their scores. The entities become `doc.ents`,
            and with their scores `doc.spans["xlner"]`, as the component of spaCy sets them.
    """
    doc_bin, vocab = _spacy()
    from spacy.tokens import Doc
    from spacy.tokens import Span as SpacySpan

    store, words_only = doc_bin(store_user_data=False), vocab()
    for words, spaces, spans in tagged:
        doc = Doc(words_only, words=list(words), spaces=list(spaces))
        doc.set_ents(
            found := [SpacySpan(doc, start, end, label) for (label, start, end), _ in spans], default="outside"
        )
        doc.spans["xlner"] = found
        doc.spans["xlner"].attrs["scores"] = [score for _, score in spans]
        store.add(doc)
    return bytes(store.to_bytes())


def merge_docbins(paths: Sequence[Path]) -> bytes:
    """The documents of several DocBins in one."""
    doc_bin, _ = _spacy()
    store = doc_bin(store_user_data=False)
    for path in paths:
        store.merge(doc_bin(store_user_data=False).from_disk(path))
    return bytes(store.to_bytes())


def _spacy() -> "tuple[type[DocBin], type[Vocab]]":
    try:
        from spacy.tokens import DocBin
        from spacy.vocab import Vocab
    except ImportError:
        raise CorpusError("DocBin files need spaCy; install it by `pip install xlner[spacy]`") from None
    return DocBin, Vocab


def _sentences(path: Path, docs: "Iterator[Doc]", reader: TagReader) -> Iterator[Located]:
    for number, rows in enumerate(_rows(path, docs), 1):
        for words, tags in rows:
            place = by_word(f"{path}: document {number}")
            yield Located(Sentence(words, None if tags is None else reader.read(tags, place)), place)


def _rows(path: Path, docs: "Iterator[Doc]") -> Iterator[list[Sentence]]:
    """The sentences of each document, with the tags as they stand in it.

    Raises:
        CorpusError: At a document that spaCy cannot make sense of, which it tells only when it is asked for a value.
    """
    while True:
        try:
            doc = next(docs)
            rows = [_row(span) for span in (list(doc.sents) if doc.has_annotation("SENT_START") else [doc[:]])]
        except StopIteration:
            return
        except _DAMAGE as problem:
            reason = " ".join(str(problem).split()) or type(problem).__name__
            raise CorpusError(f"{path}: is damaged: {reason}; make it again") from problem
        yield [row for row in rows if row.words]


def _row(span: "SpacySpan") -> Sentence:
    tokens = [token for token in span if not token.text.isspace()]
    words = tuple([token.text for token in tokens])
    if not span.doc.has_annotation("ENT_IOB"):
        return Sentence(words)
    return Sentence(words, tuple([_tag(token) for token in tokens]))


def _tag(token: "Token") -> str:
    if token.ent_type_:
        return f"{token.ent_iob_}-{token.ent_type_}"
    # Nobody has said anything of a token without one of the letters.
    return OUTSIDE if token.ent_iob_ else UNLABELLED
