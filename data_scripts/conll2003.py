"""CoNLL-2003, English and German, out of your own licensed files.

`python data_scripts/conll2003.py --source FOLDER --out data`, where FOLDER holds `{eng,deu}.{train,testa,testb}` as
the scripts of the shared task make them from the Reuters and ECI corpora, also packed as `.gz`. The text is not
free, so nothing is downloaded.

The German labels were revised in 2006; both editions have the same file names. `--labels revised` says that yours is
the later one, and keeps it apart as `conll2003/de-revised`.
"""

import sys

from conll_files import SPLITS, languages_in, read_splits
from corpus_report import write_corpus
from sources import CorpusInfo, Splits, add_languages, chosen, corpus_arguments, run

from xlner.corpora.splits import name_split, summarize
from xlner.errors import CorpusError

INFO = CorpusInfo(
    name="CoNLL-2003",
    folder="conll2003",
    source="https://www.clips.uantwerpen.be/conll2003/ner/",
    paper='Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 Shared Task: Language-Independent '
    'Named Entity Recognition", CoNLL 2003.',
    licence="that of the texts: Reuters Corpus (NIST) for English, ECI Multilingual Text (LDC) for German.",
    labels="gold",
)
PREFIXES = {"en": "eng", "de": "deu"}


def main() -> None:
    """Read the arguments, and write and report one language after the other."""
    parser = corpus_arguments(INFO, "CoNLL-2003 as train, dev (testa) and test (testb)", downloads=False)
    add_languages(parser, "en,de")
    help = "edition of the German labels: original (2003) or revised (2006)"
    parser.add_argument("--labels", choices=("original", "revised"), default="original", help=help)
    arguments = parser.parse_args()
    found = languages_in(arguments.source, PREFIXES)
    for language in chosen(arguments.languages, found, arguments.source, "{eng,deu}.{train,testa,testb}"):
        splits = read_splits(arguments.source, PREFIXES[language])
        if language == "de":
            check_labels(splits, arguments.labels)
        revised = language == "de" and arguments.labels == "revised"
        write_corpus(INFO, arguments, "de-revised" if revised else language, splits, SPLITS)
    print(INFO.citation())


def check_labels(splits: Splits, labels: str) -> None:
    """Tell, by the published counts, if German files seem to be of another edition than the user says.

    Raises:
        CorpusError: If they are said to be the revised ones, but have the counts of the original ones.
    """
    names = {split: name_split(summarize(sentences)) for split, sentences in splits.items()}
    original = [split for split, name in names.items() if "original labels" in name]
    others = [split for split in splits if split not in original]
    if labels == "original" and others:
        print(
            f"CoNLL-2003 de: the counts of {', '.join(others)} are not those published for the original labels; is "
            "this the edition of 2006? then give --labels revised",
            file=sys.stderr,
        )
    if labels == "revised" and original:
        raise CorpusError(f"CoNLL-2003 de: {', '.join(original)} has the original labels; leave out --labels revised")


if __name__ == "__main__":
    raise SystemExit(run(main))
