"""spaCy's DocBin files (`.spacy`), read and written with spaCy itself: the extra `spacy`.

spaCy holds a whole DocBin in memory; corpora larger than that are kept in several files.
"""

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from xlner.data.located import Located, by_word
from xlner.data.problems import Report
from xlner.data.schemes import TagReader
from xlner.errors import CorpusError
from xlner.text import Sentence

if TYPE_CHECKING:
    from spacy.tokens import Doc, DocBin
    from spacy.vocab import Vocab


def read_docbin(path: Path, *, report: Report) -> Iterator[Located]:
    """The sentences of a DocBin, or its documents where they have no sentences; tokens of white space are left out.

    Raises:
        CorpusError: If spaCy is not installed, or the file is no DocBin.
    """
    doc_bin, vocab = _spacy()
    try:
        docs = doc_bin().from_disk(path).get_docs(vocab())
    except (ValueError, KeyError, TypeError, OSError, EOFError, zlib.error) as problem:
        raise CorpusError(f"{path}: spaCy cannot read it as a DocBin ({problem})") from problem
    return _sentences(path, docs, TagReader("auto", report))


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


def _spacy() -> "tuple[type[DocBin], type[Vocab]]":
    try:
        from spacy.tokens import DocBin
        from spacy.vocab import Vocab
    except ImportError:
        raise CorpusError("DocBin files need spaCy; install it by `pip install xlner[spacy]`") from None
    return DocBin, Vocab


def _sentences(path: Path, docs: "Iterator[Doc]", reader: TagReader) -> Iterator[Located]:
    for number, doc in enumerate(docs, 1):
        spans = list(doc.sents) if doc.has_annotation("SENT_START") else [doc[:]]
        for span in spans:
            tokens = [token for token in span if not token.text.isspace()]
            if not tokens:
                continue
            place = by_word(f"{path}: document {number}")
            words = tuple([token.text for token in tokens])
            if not doc.has_annotation("ENT_IOB"):
                yield Located(Sentence(words), place)
                continue
            tags = tuple([f"{token.ent_iob_}-{token.ent_type_}" if token.ent_type_ else "O" for token in tokens])
            yield Located(Sentence(words, reader.read(tags, place)), place)
