import bz2
import json
import time

import pytest
from data_scripts_runs import run_data_script
from sentence_splitting import split_sentences
from wikipedia import plain_paragraphs

from xlner.corpora.source import read_corpus
from xlner.corpora.splits import summarize

pytestmark = pytest.mark.slow


def raw_text(tmp_path, *arguments, language="de", status=0):
    outcome = run_data_script("raw_text.py", "--language", language, "--out", tmp_path / "out", *arguments)
    assert outcome.returncode == status, outcome.stderr
    return outcome


def written(tmp_path, split="train"):
    return [" ".join(sentence.words) for sentence in read_corpus(tmp_path / "out/raw/de" / f"{split}.conll")]


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("en", ["Dr. Smith met J. R. Jones in the U.S. Senate.", "They left."]),
        ("en", ['He said: "No!"', "Then he went in.", "Nobody saw him…", "Why?"]),
        ("en", ["It costs 3.50 today.", "It was cheaper in 1999.", "Really?!"]),
        ("en", ["The world no. 19 won.", '"No." - she said.', "It was no. 7"]),
        ("de", ["Am 3. Oktober kam er an.", "Das war z.B. Herrn Dr. Meier recht.", "Gut so."]),
        ("de", ["»Wann kommt ihr?« fragte sie.", "(Keiner kam.)", "Um 7.30 Uhr ging sie."]),
        ("es", ["¿Dónde está la Sra. García?", "¡Aquí!"]),
        ("zh", ["我在北京。", "你呢？", "他说：“好！”", "我们走吧"]),
        ("ar", ["أين أنت؟", "أنا هنا."]),
        ("hi", ["मैं दिल्ली में हूँ।", "तुम कहाँ हो?"]),
        ("am", ["ሰላም ነው።", "እንዴት ነህ?"]),
    ],
)
def test_sentences_end_where_they_end(language, sentences):
    assert list(split_sentences(" ".join(sentences), language)) == sentences


def test_scripts_without_spaces_need_none_between_sentences():
    assert list(split_sentences("我在北京。你呢？好", "zh")) == ["我在北京。", "你呢？", "好"]


@pytest.mark.parametrize("sign", [".", '!"', "。", "a.", " .", "(", "1. "])
def test_long_runs_of_anything_take_linear_time(sign):
    started = time.process_time()

    list(split_sentences(sign * 50_000 + "x", "de"))

    assert time.process_time() - started < 3


def test_nothing_of_a_text_is_lost():
    text = "A. B.C! d?? E…\tf. G\u3000h。。i 3. J ... K"

    parts = list(split_sentences(text, "de"))

    assert "".join("".join(parts).split()) == "".join(text.split())


def test_wikitext_leaves_its_running_text():
    wikitext = """{{Infobox|name={{lang|de|Kiel}}|x=1}}
'''Kiel''' ([[Low German|Low]]: ''Kiel'', {{IPA|kiːl}}) is a [[city]]<ref name="a">Not
[[this]].</ref> in [[Germany]].<ref name=b />
[[File:Kiel.jpg|thumb|A [[ship]] in Kiel]]
== History ==
* a list
{| class="wikitable"
| a cell
|}
It has 250&nbsp;000 people ({{fact}}), see [https://kiel.de its page].<!-- or not -->
[[Kategorie:Kiel]]
"""

    paragraphs = list(plain_paragraphs(wikitext, {"kategorie"}))

    assert paragraphs == [
        "Kiel (Low: Kiel, ) is a city in Germany.",
        "It has 250 000 people, see its page.",
    ]


DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="de">
<siteinfo><namespaces><namespace key="6">Datei</namespace></namespaces></siteinfo>
<page><title>Kiel</title><ns>0</ns><revision><text>[[Datei:K.jpg]]'''Kiel''' liegt im Norden. Es ist schön dort.
</text></revision></page>
<page><title>Diskussion:Kiel</title><ns>1</ns><revision><text>Das hier ist kein Artikel.</text></revision></page>
<page><title>Kyl</title><ns>0</ns><redirect title="Kiel"/>
<revision><text>#WEITERLEITUNG [[Kiel]]</text></revision></page>
</mediawiki>
"""


def test_a_dump_of_wikipedia_gives_the_sentences_of_its_articles(tmp_path):
    path = tmp_path / "dewiki-pages-articles.xml.bz2"
    path.write_bytes(bz2.compress(DUMP.encode()))

    raw_text(tmp_path, path)

    assert written(tmp_path) == ["Kiel liegt im Norden .", "Es ist schön dort ."]


def test_a_dump_that_breaks_off_is_told_and_nothing_is_written(tmp_path):
    path = tmp_path / "dewiki-pages-articles.xml.bz2"
    path.write_bytes(bz2.compress(DUMP.encode())[:-30])

    outcome = raw_text(tmp_path, path, status=2)

    assert "no whole dump of Wikipedia" in outcome.stderr
    assert not list((tmp_path / "out/raw").iterdir())


def test_both_forms_of_wikiextractor_and_folders_of_text_are_read(tmp_path):
    folder = tmp_path / "extracted" / "AA"
    folder.mkdir(parents=True)
    # WikiExtractor escapes the text for HTML in both of its forms.
    text = "AT&amp;T\n\nAT&amp;T liegt im Norden. Es ist &lt;schön&gt; dort."
    article = {"id": "1", "title": "AT&T", "text": text}
    (folder / "wiki_00").write_text(json.dumps(article) + "\n")
    doc = '<doc id="2" url="u" title="Bonn">\nBonn\n\nBonn liegt im Westen.\n\n</doc>\n'
    (folder / "wiki_01").write_text(doc)
    (folder / "more.txt").write_text("Ulm liegt im Süden.\n")

    raw_text(tmp_path, tmp_path / "extracted")

    assert written(tmp_path) == [
        "Ulm liegt im Süden .",
        "AT&T liegt im Norden .",
        "Es ist < schön > dort .",
        "Bonn liegt im Westen .",
    ]


@pytest.fixture
def numbered(tmp_path):
    """A text of 200 sentences, each of them twice, and some too short, too long or without words."""
    path = tmp_path / "text.txt"
    lines = [f"Dies ist der Satz Nummer {number}.\n" for number in range(200)]
    path.write_text("".join([*lines, "Ja.\n", "1 2 3 4 : x\n", "lang " * 101 + "\n", *lines]))
    return path


def test_each_sentence_comes_once_and_within_the_limits(numbered, tmp_path):
    outcome = raw_text(tmp_path, numbered)

    assert written(tmp_path) == [f"Dies ist der Satz Nummer {number} ." for number in range(200)]
    summary = summarize(read_corpus(tmp_path / "out/raw/de/train.conll"))
    assert summary.fingerprint in outcome.stdout
    assert "no labels" in outcome.stdout


def test_a_sample_and_held_out_sentences_are_drawn_by_the_seed_and_share_nothing(numbered, tmp_path):
    found = []
    for seed in (0, 0, 1):
        raw_text(tmp_path, numbered, "--max-sentences", 50, "--dev", 10, "--seed", seed)
        found.append((written(tmp_path), written(tmp_path, "dev")))

    assert found[0] == found[1] != found[2]
    for train, dev in found:
        assert (len(train), len(dev)) == (50, 10)
        assert not set(train) & set(dev)


def test_a_split_that_is_not_made_again_goes_and_what_others_put_there_stays(numbered, tmp_path):
    raw_text(tmp_path, numbered, "--dev", "5")
    folder = tmp_path / "out" / "raw" / "de"
    (folder / "test.conll").write_text("Kiel\tB-LOC\n\n")

    raw_text(tmp_path, numbered)

    assert sorted(path.name for path in folder.iterdir()) == ["corpus.json", "test.conll", "train.conll"]
    assert list(json.loads((folder / "corpus.json").read_text())["splits"]) == ["train"]


def test_without_a_sample_all_that_is_not_held_out_is_kept(numbered, tmp_path):
    raw_text(tmp_path, numbered, "--dev", 10)

    train, dev = written(tmp_path), written(tmp_path, "dev")
    assert len(dev) == 10
    assert sorted(train + dev) == sorted(f"Dies ist der Satz Nummer {number} ." for number in range(200))


@pytest.mark.parametrize(("content", "message"), [(None, "cannot be read"), ("Ja.\n", "no sentence in train")])
def test_text_that_gives_nothing_is_told_with_status_2(tmp_path, content, message):
    path = tmp_path / "text.txt"
    if content:
        path.write_text(content)

    assert message in raw_text(tmp_path, path, status=2).stderr


@pytest.mark.parametrize("language", ["pl", "ru"])
def test_real_text_comes_through(shared, tmp_path, language):
    path = shared / "text" / f"{language}.txt"

    raw_text(tmp_path, path, "--max-sentences", 1000, language=language)

    sentences = list(read_corpus(tmp_path / "out/raw" / language / "train.conll"))
    assert len(set(sentences)) == 1000
    assert all(3 <= len(sentence.words) <= 100 for sentence in sentences)
