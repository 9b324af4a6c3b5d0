"""CoNLL-2002, Spanish and Dutch, as xlner reads it: `python data_scripts/conll2002.py --out data`.

With `--source FOLDER`, a local copy is taken: `{esp,ned}.{train,testa,testb}`, also packed as `.gz`.
"""

from conll_files import SPLITS, languages_in, read_splits
from corpus_report import write_corpus
from download import Pin, RemoteFile
from sources import CorpusInfo, add_languages, chosen, corpus_arguments, downloaded, run

INFO = CorpusInfo(
    name="CoNLL-2002",
    folder="conll2002",
    source="https://www.clips.uantwerpen.be/conll2002/ner/",
    paper='Tjong Kim Sang 2002, "Introduction to the CoNLL-2002 Shared Task: Language-Independent Named Entity '
    'Recognition", CoNLL 2002.',
    licence="for research in the context of the shared task only; no commercial use.",
    labels="gold",
)
PREFIXES = {"es": "esp", "nl": "ned"}


def main() -> None:
    """Read the arguments, and write and report one language after the other."""
    parser = corpus_arguments(INFO, "CoNLL-2002 as train, dev (testa) and test (testb)")
    add_languages(parser, "es,nl")
    arguments = parser.parse_args()
    found = list(PREFIXES) if arguments.source is None else languages_in(arguments.source, PREFIXES)
    languages = chosen(arguments.languages, found, arguments.source, "{esp,ned}.{train,testa,testb}")
    source = downloaded(INFO, arguments, [file for language in languages for file in remote_files(language)])
    for language in languages:
        write_corpus(INFO, arguments, language, read_splits(source, PREFIXES[language]), SPLITS)
    print(INFO.citation())


def remote_files(language: str) -> list[RemoteFile]:
    """The three files of a language."""
    names = [f"{PREFIXES[language]}.{suffix}" for suffix in SPLITS.values()]
    return [RemoteFile(f"{INFO.folder}/{name}", f"{ADDRESS}/{name}", PINS[name]) for name in names]


ADDRESS = "https://raw.githubusercontent.com/teropa/nlp/master/resources/corpora/conll2002"
# Source: the checksums that Hugging Face `datasets` published with its loader of this corpus (dataset_infos.json).
PINS = {
    "esp.train": Pin(2970825, "a20d95cab7d88a19a86f8c1ad6329325c99fbd9529ed978cbd7e31d4b01b4008"),
    "esp.testa": Pin(594058, "85c17793b77881c53d19017d9d0f1e6fb98b7ddcab54a5f24b05ed1793103c87"),
    "esp.testb": Pin(575807, "1f8f7a392c6d4979a5592a5794eed43d7869b46da6851bbcde99714149f1d016"),
    "ned.train": Pin(2377174, "0a419dcb356b62c8cff38515675550b3d5dbea9f45a1c4956328dbd5cc7fcdbc"),
    "ned.testa": Pin(450785, "51259d4bfe52462f211d3d0b67173a7ecbfa296e199f6c6bd0895f4c78155057"),
    "ned.testb": Pin(814282, "2aa748edb82e6f9c4d82e57a4bed69ded18cfa4803122c75070335d513517488"),
}


if __name__ == "__main__":
    raise SystemExit(run(main))
