"""Where corpora are: the layout of folders, and what to tell when a file is not there."""

from difflib import get_close_matches
from pathlib import Path

from xlner.errors import CorpusError

# What a file is by its suffix; in a folder of corpora, `find_corpus` takes the first of these that is there.
SUFFIXES = {
    ".conll": "conll",
    ".txt": "text",
    ".conllu": "conll",
    ".conllup": "conll",
    ".iob2": "conll",
    ".iob": "conll",
    ".bio": "conll",
    ".tsv": "conll",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".spacy": "docbin",
    ".csv": "csv",
    ".json": "json",
    ".ann": "brat",
}
N_LISTED = 12  # names that a message lists at most


def corpus_path(data: str | Path, language: str, split: str) -> Path:
    """Where a split of a language is: `DATA/LANGUAGE/SPLIT` with the first of `SUFFIXES` that is there.

    Without any, a folder of that name may hold a data set that `save_to_disk` made.

    Raises:
        CorpusError: If there is none; the message lists what there is.
    """
    found = find_corpus(data, language, split)
    if found is None:
        wanted = Path(data, language, f"{split}.conll")
        raise CorpusError(f"no corpus at {wanted} (or .txt, .conllu, .iob2); {_neighbours(wanted)}")
    return found


def text_path(text: str, data: str | Path, language: str) -> Path:
    """Where an unlabelled text is: where `text` says, or if that is empty, the `train` of a language.

    Raises:
        CorpusError: If it is not there.
    """
    if not text:
        return corpus_path(data, language, "train")
    return Path(text) if Path(text).is_dir() else existing_file(text)


def find_corpus(data: str | Path, language: str, split: str) -> Path | None:
    """As `corpus_path`, but None where there is no such file or folder."""
    folder = Path(data, language, split)
    candidates = (folder.with_name(split + suffix) for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), folder if folder.is_dir() else None)


def existing_file(source: str) -> Path:
    """The path, if a file is there.

    Raises:
        CorpusError: If not; the message lists what there is.
    """
    path = Path(source)
    if path.is_dir():
        raise CorpusError(f"{path} is a folder; expected a file; it holds: {_listing(path, like=path.name)}")
    if not path.exists():
        raise CorpusError(f"no corpus at {path}; {_neighbours(path)}")
    return path


def _neighbours(path: Path) -> str:
    """What the nearest folder of this path that exists holds."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    return f"{folder} holds: {_listing(folder, like=path.relative_to(folder).parts[0])}"


def _listing(folder: Path, like: str) -> str:
    """Names of a folder, similar ones first."""
    names = sorted(entry.name for entry in folder.iterdir())
    similar = get_close_matches(like, names)
    listed = [*similar, *(name for name in names if name not in similar)][:N_LISTED]
    n_more = len(names) - len(listed)
    return (", ".join(listed) or "nothing") + (f" and {n_more:,} more" if n_more else "")
