import time

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from xlner.errors import ModelError
from xlner.words import WORD_SPLITTERS, split_words

# Everything that text is made of: letters, marks, digits, signs, invisible ones, emoji, lone surrogates.
CHARACTERS = st.characters() | st.sampled_from("a.A'’-&1,:/@_ \n\u00a0\u200b\u200c\u200d\u0301北ก็👩🏽🇩\ud83d")
TEXT = st.text(CHARACTERS, max_size=60)
UNSPACED_SCRIPT = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ーｰ]")


def words(text, splitter="unicode"):
    return [text[start:end] for start, end in split_words(text, splitter)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Jean-Claude kam.", "Jean-Claude|kam|."),
        ("3.5 oder 10,000 um 19:30", "3.5|oder|10,000|um|19:30"),
        ("z.B. in den U.S. am Ende.", "z.B.|in|den|U.S.|am|Ende|."),
        ("John F. Kennedy, St. Anton", "John|F.|Kennedy|,|St.|Anton"),
        ("end.The AT&T-Chef", "end|.|The|AT&T-Chef"),
        ("1914-1918 18-jährig Covid-19", "1914|-|1918|18-jährig|Covid-19"),
        ("na so... ja!?", "na|so|...|ja|!|?"),
        ("London's O'Brien don't James'", "London|'s|O'Brien|don't|James|'"),
        ("L'Italia dell'arte qu'il aujourd'hui", "L'|Italia|dell'|arte|qu'|il|aujourd'hui"),
        ("L' Italia dell' arte d' origine", "L'|Italia|dell'|arte|d'|origine"),
        ("rock 'n' roll, the 'T' is", "rock|'|n|'|roll|,|the|'|T|'|is"),
        ("„Nein“, (sagte) sie", "„|Nein|“|,|(|sagte|)|sie"),
        ("anna@x-y.org, www.a.de/b?c=1.", "anna@x-y.org|,|www.a.de/b?c=1|."),
        ("Donau\u00addampf e\u0301te\u0301", "Donau\u00addampf|e\u0301te\u0301"),
        ("می‌خواهم कृपया", "می‌خواهم|कृपया"),
        ("我在北京。2004年", "我|在|北|京|。|2004|年"),
        ("กำที่", "กำ|ที่"),
        ("👩🏽‍🚀🇩🇪🇫🇷 1️⃣", "👩🏽‍🚀|🇩🇪|🇫🇷|1️⃣"),
        ("a\u200bb\u00a0c\ufeff \u2060", "a|b|c"),
        ("", ""),
    ],
)
def test_text_is_cut_as_corpora_cut_it(text, expected):
    assert "|".join(words(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("東京タワーへ行きました。", "東京|タワー|へ|行|きました|。"),
        ("アンゲラ・メルケルはキール", "アンゲラ|・|メルケル|は|キール"),
        ("ﾒﾙｹﾙらーめんコーヒー", "ﾒﾙｹﾙ|らーめん|コーヒー"),
        ("ガがか\u3099", "ガ|がか\u3099"),
        ("佐々木とiPhone15を2004年", "佐々木|と|iPhone15|を|2004|年"),
        ("北京 大学。上海", "北京|大学|。|上海"),
        ("กรุงเทพ ที่นี่ๆ", "กรุงเทพ|ที่นี่ๆ"),
        ("ເມືອງລາວ ភ្នំពេញ មន\u200bត", "ເມືອງລາວ|ភ្នំពេញ|មន|ត"),
        ("ရန်ကုန် ၂၀၀၄", "ရန်ကုန်|၂၀၀၄"),
        ("Jean-Claude kam. l'Italia", "Jean-Claude|kam|.|l'|Italia"),
    ],
)
def test_script_runs_are_words_where_no_spaces_are_written(text, expected):
    assert "|".join(words(text, "script_runs")) == expected


@given(text=TEXT)
def test_script_runs_are_made_of_whole_words_of_the_finer_splitter(text):
    finer, coarser = split_words(text, "unicode"), split_words(text, "script_runs")

    assert {start for start, _ in coarser} <= {start for start, _ in finer}
    assert {end for _, end in coarser} <= {end for _, end in finer}


@given(text=TEXT | st.text())
def test_script_runs_change_nothing_in_scripts_with_spaces(text):
    text = UNSPACED_SCRIPT.sub("", text)

    assert split_words(text, "script_runs") == split_words(text, "unicode")


@pytest.mark.parametrize("splitter", sorted(WORD_SPLITTERS))
@given(text=TEXT)
def test_words_rise_do_not_overlap_and_hold_no_white_space(splitter, text):
    offsets = split_words(text, splitter)

    ends = [0, *(end for _, end in offsets)]
    assert all(before <= start < end for before, (start, end) in zip(ends, offsets, strict=False))
    assert not any(char.isspace() for word in words(text, splitter) for char in word)


@pytest.mark.parametrize("splitter", sorted(WORD_SPLITTERS))
@given(text=st.text(st.characters(categories=["L", "N", "P", "S", "Z"]), max_size=60))
def test_no_visible_character_is_lost(splitter, text):
    invisible = "\u115f\u1160\u3164\uffa0"  # letters by their class, yet nothing is seen of them

    kept = "".join(words(text, splitter))

    assert kept.translate(dict.fromkeys(map(ord, invisible))) == "".join(
        char for char in text if not char.isspace() and char not in invisible
    )


REPEATED = ["a.", "A.", "a'", "l'", "a-", "1,", "a@", "北", "\u0301", "a\u200d", "🇩", "👩\u200d", ".", "!?", "www."]


@pytest.mark.parametrize("splitter", ["unicode", "script_runs"])
@pytest.mark.parametrize("pattern", [*REPEATED, "a", "\ud83d", "ab.cde.", "ー\u0301", "北a"])
def test_time_grows_with_the_length_of_the_text_and_no_faster(splitter, pattern):
    text = pattern * (300_000 // len(pattern))
    start = time.process_time()

    split_words(text, splitter)

    # It takes well below a second; going back only once per character would take minutes.
    assert time.process_time() - start < 20


@pytest.mark.parametrize(("corpus", "lowest"), [("en_ewt", 0.97), ("de_pud", 0.97), ("pt_bosque", 0.99)])
def test_words_are_those_of_universal_dependencies(shared, corpus, lowest):
    right = found = wanted = 0
    for text, gold_words in sentences_with_text(shared / f"data/uner/{corpus}/{corpus}-ud-test.iob2"):
        gold = offsets_in(text, gold_words)
        offsets = set(split_words(text))
        right, found, wanted = right + len(gold & offsets), found + len(offsets), wanted + len(gold)

    assert 2 * right / (found + wanted) > lowest


def test_an_unknown_splitter_is_refused_with_the_known_ones():
    with pytest.raises(ModelError, match="'spacy'; known: script_runs, unicode, whitespace"):
        split_words("a", "spacy")


def sentences_with_text(path):
    text, held = "", []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# text ="):
            text = line.removeprefix("# text =").strip()
        elif line and not line.startswith("#"):
            held.append(line.split("\t")[1])
        elif held and not line:
            yield text, held
            held = []


def offsets_in(text, gold_words):
    offsets, place = set(), 0
    for word in gold_words:
        place = text.index(word, place)
        offsets.add((place, place + len(word)))
        place += len(word)
    return offsets
