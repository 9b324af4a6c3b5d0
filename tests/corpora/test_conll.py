import pytest
from corpus_samples import KIEL, RAIN, TWO_COLUMNS

from xlner.corpora import lines
from xlner.corpora.source import read_corpus, read_located
from xlner.corpora.spans import ReadingOptions
from xlner.errors import CorpusError
from xlner.words import Sentence, unicode_words


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(TWO_COLUMNS, id="two columns"),
        pytest.param(TWO_COLUMNS.rstrip("\n"), id="no line end at the end"),
        pytest.param(TWO_COLUMNS.replace("\t", " "), id="spaces"),
        pytest.param(TWO_COLUMNS.replace("\t", "   "), id="several spaces"),
        pytest.param(TWO_COLUMNS.replace("\n", "\r\n"), id="CRLF"),
        pytest.param(TWO_COLUMNS.replace("\n", "\r"), id="CR"),
        pytest.param(TWO_COLUMNS.replace("\n", " \n"), id="blanks at the line end"),
        pytest.param("\n \n" + TWO_COLUMNS.replace("\n\n", "\n\t\n\n \n"), id="more blank lines"),
        pytest.param("\ufeff" + TWO_COLUMNS, id="byte order mark"),
        pytest.param("-DOCSTART- -X- O\n\n" + TWO_COLUMNS, id="document start"),
        pytest.param("-DOCSTART-\tO\n\n" + TWO_COLUMNS, id="document start with TABs"),
        pytest.param(TWO_COLUMNS.replace("\n\n", "\n-DOCSTART-\tO\n"), id="document start between"),
        pytest.param("# global.columns = FORM NER\n# newdoc\n" + TWO_COLUMNS, id="comments"),
        pytest.param(
            "0\tAngela\tB-PER\n1\tMerkel\tI-PER\n2\tin\tO\n3\tKiel\tB-LOC\n\n0\tRegen\tO\n",
            id="WikiNEuRal",
        ),
        pytest.param(
            "Angela NNP B-NP B-PER\nMerkel NNP I-NP I-PER\nin IN B-PP O\nKiel NNP B-NP B-LOC\n\nRegen NN B-NP O\n",
            id="CoNLL-2003",
        ),
        pytest.param(
            "# newdoc id = n1\n# sent_id = n1-1\n# text = Angela Merkel in Kiel\n"
            "1\tAngela\tB-PER\t-\tme\n2\tMerkel\tI-PER\t-\tme\n3\tin\tO\t-\t-\n4\tKiel\tB-LOC\t-\tme\n\n"
            "# sent_id = n1-2\n# text = Regen\n1\tRegen\tO\t-\t-\n\n",
            id="Universal NER",
        ),
        pytest.param(
            "# source\n1\tAngela\tB-PER\tO\n2\tMerkel\tI-PER\tO\n3\tin\tO\tO\n4\tKiel\tB-LOC\tO\n\n1\tRegen\tO\tO\n",
            id="GermEval",
        ),
        pytest.param(
            "1\tAngela\tB-PER\n2\tMerkel\tI-PER\n3-4\tim\tO\n3\tin\tO\n3.1\tx\t_\n4\tKiel\tB-LOC\n\n1\tRegen\tO\n",
            id="ranges and left-out words",
        ),
    ],
)
def test_one_content_is_read_alike_from_all_kinds_of_columns(read, content):
    assert read(content) == [KIEL, RAIN]


def test_iob1_becomes_iob2(read):
    sentences = read("Paul\tI-PER\nEva\tB-PER\nKiel\tI-LOC\nBonn\tI-LOC\n")

    assert sentences == [Sentence(("Paul", "Eva", "Kiel", "Bonn"), ("B-PER", "B-PER", "B-LOC", "I-LOC"))]


@pytest.mark.parametrize("broken", ["I-PER", "O I-PER", "B-LOC I-PER", "B-PER I-PER O I-PER"])
def test_strict_refuses_the_first_tag_that_continues_nothing(read, broken):
    rows = [f"word\t{tag}" for tag in broken.split()]

    with pytest.raises(CorpusError, match=rf"corpus\.conll:{len(rows)}: I-PER continues no entity.*expected B-PER"):
        read("\n".join(rows), scheme="strict")


def test_strict_reads_clean_iob2(read):
    assert read(TWO_COLUMNS, scheme="strict") == [KIEL, RAIN]


def test_one_column_holds_words_without_tags(read):
    assert read("Angela\nMerkel\n\nRegen\n") == [Sentence(("Angela", "Merkel")), Sentence(("Regen",))]


def test_underscores_in_the_place_of_tags_leave_a_sentence_unlabelled(read):
    assert read("Angela\t_\nMerkel\t_\n\nRegen\tO\n") == [Sentence(("Angela", "Merkel")), RAIN]


@pytest.mark.parametrize(("content", "tags"), [("1\tO\n2\tO\n", ("O", "O")), ("1\t_\n2\t_\n", None)])
def test_numbers_beside_tags_are_words(read, content, tags):
    assert read(content) == [Sentence(("1", "2"), tags)]


def test_numbers_beside_words_count_them(read):
    assert read("1\tAngela\n2\tMerkel\n\n1\tRegen\n") == [Sentence(("Angela", "Merkel")), Sentence(("Regen",))]


def test_a_plain_conllu_file_gives_words_without_tags(read):
    rest = "_\tNOUN\t_\t_\t0\troot\t_\tSpaceAfter=No"

    assert read(f"# text = Regen.\n1\tRegen\t{rest}\n2\t.\t{rest}\n", "corpus.conllu") == [Sentence(("Regen", "."))]


@pytest.mark.parametrize("word", ["10\u00a0000", "\u3000", "a\u2028b", "a\x85b", "a\x0bb", "\u200b", "e\u0301", "\x1c"])
def test_only_tabs_spaces_and_line_ends_separate(read, word):
    assert read(f"{word}\tO\n") == [Sentence((word,), ("O",))]


def test_a_space_stays_in_a_word_where_tabs_separate(read):
    assert read("34 470\tO\nKiel\tB-LOC\n") == [Sentence(("34 470", "Kiel"), ("O", "B-LOC"))]


@pytest.mark.parametrize(
    ("line", "is_word"),
    [
        ("#\tO", True),
        ("#Kiel\tB-LOC", True),
        ("# O", True),
        ("# newdoc", False),
        ("# text = Kiel", False),
        ("#", False),
        ("# a\tb", False),
        ("#\tB-LOC\tO", False),
    ],
)
def test_a_hash_begins_a_comment_unless_the_line_looks_like_the_other_rows(read, line, is_word):
    sentence = read(f"{line}\nRegen\tO\n")[0]

    assert len(sentence.words) == 1 + is_word


@pytest.mark.parametrize(
    ("tags", "options"),
    [
        ("S-PROD S-LOC O", {}),
        ("U-PROD U-LOC O", {}),
        ("b-PROD B-LOC O", {}),
        ("PROD LOC O", {"scheme": "plain"}),
        ("1 2 0", {"labels": "O,B-PROD,B-LOC"}),
        ("prod B-LOC O", {"scheme": "ignore"}),
    ],
    ids=["BIOES", "BILOU", "misspelt", "plain", "numbers", "ignored"],
)
def test_a_word_that_begins_with_a_hash_is_read_in_every_scheme(tmp_path, tags, options):
    product, place, outside = tags.split()
    rows = [("#1", product), ("ist", outside), (), ("Kiel", place), ("hat", outside), ("#1", product), ()]
    problems = []
    # Where spaces separate, `#1 prod` says too little.
    for sign in ("\t", " ") if product != "prod" else ("\t",):
        content = "# newdoc\n# text = #1 ist\n" + "".join(sign.join(row) + "\n" for row in rows)
        (tmp_path / "x.conll").write_text(content)

        reading = ReadingOptions(**options, report=problems.append)
        found = [sentence for sentence, _ in read_located(tmp_path / "x.conll", "auto", reading)]

        assert [sentence.words for sentence in found] == [("#1", "ist"), ("Kiel", "hat", "#1")]
        assert found[0].tags == (None if product == "prod" else ("B-PROD", "O"))
    assert [problem.code for problem in problems] == ["XL012"] * 4 * (product == "b-PROD")


@pytest.mark.parametrize("comment", ["# text = Kiel", "# newdoc", "# e.g.", "#id 5", "# a\tb", "#Form\tNER"])
def test_comments_among_tags_of_any_scheme_stay_comments(read, comment):
    for sign in ("\t", " ") if "\t" not in comment else ("\t",):
        assert len(read(f"{comment}\nKiel{sign}S-LOC\n")[0].words) == 1
        assert len(read(f"{comment}\nKiel{sign}LOC\n", scheme="plain")[0].words) == 1


def test_a_row_that_begins_with_a_hash_and_has_no_tag_is_refused_and_not_lost(read):
    with pytest.raises(CorpusError, match=r"corpus\.conll:1: found tag 'PROD'"):
        read("#1\tPROD\nKiel\tB-LOC\n")


def test_an_unlabelled_hash_is_a_word(read):
    assert read("#\t_\n\nRegen\tO\n") == [Sentence(("#",)), RAIN]


@pytest.mark.parametrize("columns", ["1,3", "1,-2", (1, 3), "(1, 3)", "[1,3]"])
def test_columns_are_counted_from_either_end(read, columns):
    assert read("a Kiel x B-LOC y\nb in x O y\n", columns=columns) == [Sentence(("Kiel", "in"), ("B-LOC", "O"))]


def test_a_single_column_number_reads_words_alone(read):
    assert read(TWO_COLUMNS, columns="0") == [Sentence(KIEL.words), Sentence(RAIN.words)]


def test_chosen_columns_skip_contractions_too(read):
    sentences = read("1-2\tim\tIN\tO\n1\tin\tIN\tO\n2\tdem\tDT\tO\n", columns="1,3")

    assert sentences == [Sentence(("in", "dem"), ("O", "O"))]


@pytest.mark.parametrize("columns", ["", "a,b,c", "a,", "0,1,2", "1,1", "0;1"])
def test_columns_that_are_no_two_numbers_are_refused_before_reading(tmp_path, columns):
    (tmp_path / "x.conll").write_text("a\tO\n")

    with pytest.raises(CorpusError, match=r"corpus\.columns is .*expected auto"):
        read_corpus(tmp_path / "x.conll", columns=columns)


@pytest.mark.parametrize(
    ("columns", "message"), [("0,2", r"column 2, but rows have 2 \(0 to 1\): 'Kiel B-LOC'"), ("1,-1", "both")]
)
def test_columns_that_the_file_does_not_have_are_refused(read, columns, message):
    with pytest.raises(CorpusError, match=message):
        read("Kiel\tB-LOC\n", columns=columns)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("Angela\tB-PER\nMerkel\tE-PER\nin\tO\nKiel\tS-LOC\n\nRegen\tO\n", id="BIOES"),
        pytest.param("Angela\tB-PER\nMerkel\tL-PER\nin\tO\nKiel\tU-LOC\n\nRegen\tO\n", id="BILOU"),
        pytest.param("Angela\tB-PER\nMerkel\tE-PER\nin\tO\nKiel\tW-LOC\n\nRegen\tO\n", id="BMEWO"),
        pytest.param(
            "# global.columns = ID FORM PARSEME:NE\n1\tAngela\tB-PER\n2\tMerkel\tI-PER\n3\tin\tO\n4\tKiel\tB-LOC\n\n"
            "1\tRegen\tO\n",
            id="CoNLL-U Plus",
        ),
        pytest.param(
            "# global.columns = XLNER:NER UPOS FORM\nB-PER\tX\tAngela\nI-PER\tX\tMerkel\nO\tX\tin\nB-LOC\tX\tKiel\n\n"
            "O\tX\tRegen\n",
            id="CoNLL-U Plus in another order",
        ),
        pytest.param(
            "".join(
                f"{number}\t{word}\t_\t_\t_\t_\t_\t_\t_\t{misc}\n"
                for number, word, misc in [
                    (1, "Angela", "NER=B-PER"),
                    (2, "Merkel", "NER=I-PER|SpaceAfter=No"),
                    (3, "in", "_"),
                    (4, "Kiel", "Gloss=x|NER=B-LOC"),
                ]
            )
            + "\n1\tRegen\t_\t_\t_\t_\t_\t_\t_\t_\n",
            id="CoNLL-U with tags in MISC",
        ),
    ],
)
def test_other_schemes_and_named_columns_are_read_alike(read, content):
    assert read(content) == [KIEL, RAIN]


def test_columns_are_asked_for_by_name(read):
    content = "# global.columns = ID FORM GOLD:NER SILVER:NER\n1\tKiel\tO\tB-LOC\n"

    assert read(content, columns="FORM,SILVER:NER") == [Sentence(("Kiel",), ("B-LOC",))]
    assert read(content) == [Sentence(("Kiel",), ("O",))]
    with pytest.raises(CorpusError, match=r"the column 'LEMMA', but the file's columns are ID, FORM, GOLD:NER"):
        read(content, columns="LEMMA,NER")
    with pytest.raises(CorpusError, match="the file names no columns"):
        read(TWO_COLUMNS, columns="FORM,NER")


def test_a_key_of_misc_is_asked_for_by_name(read):
    row = "1\tKiel\t_\t_\t_\t_\t_\t_\t_\tEnt=B-LOC|NER=O\n"

    assert read(row, columns="FORM,MISC:Ent") == [Sentence(("Kiel",), ("B-LOC",))]


def test_tags_in_misc_that_come_late_are_not_lost(read):
    bare = "1\tRegen\t_\t_\t_\t_\t_\t_\t_\t_\n\n"
    late = "1\tKiel\t_\t_\t_\t_\t_\t_\t_\tNER=B-LOC\n"

    with pytest.raises(CorpusError, match=r"corpus\.conll:141: a tag as NER=.*corpus\.columns=FORM,MISC:NER"):
        read(bare * 70 + late)
    assert read(bare * 70 + late, columns="FORM,MISC:NER")[-1] == Sentence(("Kiel",), ("B-LOC",))


def test_what_ends_an_entity_keeps_the_next_tag_from_continuing_it(read):
    sentences = read("a\tB-PER\nb\tE-PER\nc\tI-PER\nd\tS-PER\ne\tE-PER\n")

    assert sentences[0].tags == ("B-PER", "I-PER", "B-PER", "B-PER", "B-PER")


def test_plain_types_are_read_when_asked_for(read):
    content = "Angela\tPER\nMerkel\tPER\nin\tO\nKiel\tLOC\n\nRegen\tO\n"

    assert read(content, scheme="plain") == [KIEL, RAIN]
    with pytest.raises(CorpusError, match=r"found tag 'PER'.*corpus\.scheme=plain"):
        read(content)


def test_the_order_of_clean_and_odd_passages_does_not_matter(read, monkeypatch):
    """The quick way through clean passages and the slow one through others give the same sentences and lines."""
    monkeypatch.setattr(lines, "CHUNK_SIZE", 64)
    clean, odd = "0\tKiel\tB-LOC\n1\tist\tO\n\n", "# text = Kiel\n0\tKiel\tB-LOC\n1-2\tim\t_\n1\tist\tO\n \n"
    content = clean * 7 + odd * 5 + clean * 9 + odd

    assert read(content) == [Sentence(("Kiel", "ist"), ("B-LOC", "O"))] * 22
    with pytest.raises(CorpusError, match=rf"corpus\.conll:{(content + clean).count(chr(10)) + 2}: found tag 'x'"):
        read(content + clean + "0\tKiel\tB-LOC\n1\tist\tx\n\n" + clean)


ANNA = Sentence(("Anna", "lebt"), ("B-PER", "O"))


@pytest.mark.parametrize("key", ["name", "NER", "NE", "ner_tag", "Entity", "label"])
def test_tags_under_any_usual_key_of_misc_are_read(read, key):
    rest = "\t_" * 7
    content = f"1\tAnna{rest}\t{key}=B-PER\n2\tlebt{rest}\tSpaceAfter=No|{key}=O\n"

    assert read(content, "x.conllu") == [ANNA]


@pytest.mark.parametrize("name", ["NER", "NE_TAG", "BIO", "Labels", "entity-tag", "XLNER:NER", "ner_tags"])
def test_tags_under_any_usual_name_of_a_column_are_read(read, name):
    assert read(f"# global.columns = ID FORM {name}\n1\tAnna\tB-PER\n2\tlebt\tO\n", "x.conllup") == [ANNA]


@pytest.mark.parametrize(
    ("content", "named", "columns"),
    [
        (
            "# global.columns = ID FORM PROJ:X\n1\tAnna\tB-PER\n2\tlebt\tO\n",
            "the column 'PROJ:X' looks like tags",
            "FORM,X",
        ),
        (
            "1\tAnna" + "\t_" * 7 + "\tEnt=B-PER\n2\tlebt" + "\t_" * 7 + "\tEnt=O\n",
            ":1: a tag as Ent=",
            "FORM,MISC:Ent",
        ),
    ],
)
def test_tags_under_a_name_that_says_nothing_are_named_and_not_lost(read, content, named, columns):
    with pytest.raises(CorpusError, match=named) as refusal:
        read(content)

    assert f"corpus.columns={columns}" in str(refusal.value).replace("PROJ:", "")
    assert read(content, columns=columns) == [ANNA]
    assert read(content, columns="FORM") == [Sentence(ANNA.words)]
    assert read(content, scheme="ignore") == [Sentence(ANNA.words)]


def test_tags_in_any_column_of_conllu_are_read(read):
    assert read("1\tAnna\t_\t_\tB-PER" + "\t_" * 5 + "\n2\tlebt\t_\t_\tO" + "\t_" * 5 + "\n") == [ANNA]


def test_a_sentence_without_the_key_has_no_labels_where_others_name_o(read):
    labelled = "1\tKiel" + "\t_" * 7 + "\tNER=B-LOC\n2\tlebt" + "\t_" * 7 + "\tNER=O\n\n"
    bare = "1\tRegen" + "\t_" * 8 + "\n\n"

    assert read(labelled + bare)[1] == Sentence(("Regen",))
    with pytest.raises(CorpusError, match=r":5: found '_' \(no label\) beside tags.*XL014"):
        read(labelled + labelled.replace("NER=O", "_"))


def test_o_that_is_named_late_is_told_where_it_is(read):
    entity = "1\tKiel" + "\t_" * 7 + "\tNER=B-LOC\n2\tlebt" + "\t_" * 8 + "\n\n"

    with pytest.raises(CorpusError, match=r":182: NER=O here, where words before have no NER= at all.*XL014"):
        read(entity * 60 + "1\tRegen" + "\t_" * 8 + "\n2\tfällt" + "\t_" * 7 + "\tNER=O\n")


@pytest.mark.parametrize("first", [("1", "3"), ("2", "3"), ("1.0", "2.0"), ("0", "7"), ("10", "20")])
def test_words_are_counted_with_any_gaps(read, first):
    a, b = first
    content = f"{a}\tAnna\tB-PER\n{b}\tlebt\tO\n\n1\tAnna\tB-PER\n2\tlebt\tO\n"
    rest = "\t_" * 8

    assert read(content) == [ANNA, ANNA]
    assert read(f"{a}\tAnna{rest}\n{b}\tlebt{rest}\n4\there{rest}\n", "x.conllu")[0].words[:2] == ANNA.words


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n", "\n\r"])
@pytest.mark.parametrize("size", [1, 3, 1 << 18])
def test_every_line_end_ends_a_line_once(read, monkeypatch, end, size):
    monkeypatch.setattr(lines, "CHUNK_SIZE", size)

    assert read(TWO_COLUMNS.replace("\n", end)) == [KIEL, RAIN]


def test_line_ends_may_be_mixed(read):
    first, second = TWO_COLUMNS.split("\n\n")

    assert read(first.replace("\n", "\r\n") + "\r\n\n" + second) == [KIEL, RAIN]
    assert read(first + "\n\r\n" + second.replace("\n", "\r")) == [KIEL, RAIN]


@pytest.mark.parametrize("end", ["\v", "\f", "\x1c", "\x1e", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("name", ["x.conll", "x.txt"])
def test_what_ends_no_line_is_told_and_makes_no_sentence_of_the_file(read, end, name):
    with pytest.raises(CorpusError, match=rf"U\+{ord(end):04X}.*XL005"):
        read(TWO_COLUMNS.replace("\n", end), name)
    with pytest.raises(CorpusError, match=rf"U\+{ord(end):04X}.*XL005"):
        read("Anna\tB-PER\nlebt\tO\n\n" + TWO_COLUMNS.replace("\n", end, 1))


BLANKS = ["\u00a0", "\u200b", "\ufeff", "\u2007", "\u3000", "\u200e", "\u00ad", "\x0c", "\x85"]


@pytest.mark.parametrize("blank", BLANKS)
def test_invisible_blanks_around_tags_are_no_part_of_them(read, blank):
    assert read(TWO_COLUMNS.replace("B-PER", f"B-PER{blank}").replace("B-LOC", f"{blank}B-LOC ")) == [KIEL, RAIN]
    if blank == "\x0c":  # it would act on a terminal
        with pytest.raises(CorpusError, match="expected no control characters"):
            read(f"Anna\tB-P{blank}ER\n")
    else:
        assert read(f"Anna\tB-P{blank}ER\n") in ([Sentence(("Anna",), (f"B-P{mid}ER",))] for mid in ("", " ", blank))


@pytest.mark.parametrize("blank", [blank for blank in BLANKS if blank not in "\x85\x0c"])
def test_a_line_that_looks_blank_ends_a_sentence(read, blank):
    assert read(TWO_COLUMNS.replace("\n\n", f"\n{blank}\n")) == [KIEL, RAIN]


@pytest.mark.parametrize("sign", ["\u00a0", "\u3000", "\u2003", ",", ";", "|"])
def test_columns_that_another_sign_separates_are_told(read, sign):
    with pytest.raises(CorpusError, match=r"word and tag are separated by .*expected a TAB or spaces"):
        read(TWO_COLUMNS.replace("\t", sign))


def test_columns_under_the_name_of_a_text_are_told(read):
    with pytest.raises(CorpusError, match=r"found words and tags in columns: 'Angela B-PER'; set corpus\.format=conll"):
        read(TWO_COLUMNS, "x.txt")
    assert read(TWO_COLUMNS, "x.txt", format="conll") == [KIEL, RAIN]


def test_labels_that_are_not_looked_at_are_never_wrong(read):
    odd = "Anna\tB-PER\nlebt\t_\nin\tPER\nKiel\tb_LOC\n"

    assert read(odd, scheme="ignore") == [Sentence(("Anna", "lebt", "in", "Kiel"))]
    with pytest.raises(CorpusError):
        read(odd)


def test_numbers_are_tags_by_their_names(read):
    content = "Angela\t3\nMerkel\t4\nin\t0\nKiel\t1\n\nRegen\t0\n\nnichts\t-100\n"

    assert read(content, labels="O,B-LOC,I-LOC,B-PER,I-PER") == [KIEL, RAIN, Sentence(("nichts",))]
    with pytest.raises(CorpusError, match=r"found tag '3'.*corpus\.labels=O,B-TYPE"):
        read(content)
    with pytest.raises(CorpusError, match=r"corpus\.labels is 'B-LOC'; expected the tag of each number"):
        read(content, labels="B-LOC")


ROWS = [
    (number, word, tag)
    for number, (words, tags) in enumerate([KIEL, RAIN])
    for word, tag in zip(words, tags, strict=True)
]


WORDS = [row[1:] for row in ROWS]
COUNTED = [(7, number, place, word, tag) for place, (number, word, tag) in enumerate(ROWS)]


def table(rows, delimiter="\t", end="\n"):
    return "".join(delimiter.join(map(str, row)) + end for row in rows)


SPARSE = [("Sentence #", "Word", "POS", "Tag")] + [
    (f"Sentence: {number}" if number * 4 == place else "", word, "NN", tag)
    for place, (number, word, tag) in enumerate(ROWS)
]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.tsv", table(ROWS)),
        ("x.conll", table(ROWS, " ")),
        ("x.tsv", table([("sentence_id", "word", "tag"), *ROWS])),
        ("x.tsv", table([(0, *row) for row in ROWS])),
        ("x.tsv", table([("doc", "sent", "idx", "token", "ner"), *COUNTED])),
        ("x.tsv", table(SPARSE)),
        ("x.tsv", table(SPARSE[1:])),
        ("x.csv", table(SPARSE, ",", "\r\n")),
        ("x.csv", table([("Satz", "Wort", "Label"), *ROWS], ";")),
        ("x.csv", table([(f"s{n}", w, t) for n, w, t in ROWS], "|")),
        ("x.csv", "word,tag\n" + table(WORDS[:4], ",") + ",\n" + table(WORDS[4:], ",")),
        ("x.conll", "word\ttag\n" + table(WORDS[:4]) + "\n" + table(WORDS[4:])),
        ("x.tsv", table([(p if n == 0 else 0, w, t) for p, (n, w, t) in enumerate(ROWS)])),
    ],
    ids=["ids", "spaces", "header", "two ids", "names", "sparse", "sparse, no header", "Kaggle", "Excel", "bars",
         "blank rows", "header of columns", "numbers of words alone"],
)  # fmt: skip
def test_rows_become_sentences_by_their_numbers(read, name, content):
    assert read(content, name) == [KIEL, RAIN]
    assert read(content, name, scheme="ignore") == [Sentence(KIEL.words), Sentence(RAIN.words)]


def test_cells_in_quotation_marks_hold_delimiters_and_quotation_marks(read):
    content = 'sentence,word,tag\n1,"a,b",O\n1,"""",O\n2,",",O\n'

    assert read(content, "x.csv") == [Sentence(("a,b", '"'), ("O", "O")), Sentence((",",), ("O",))]


def test_the_number_of_a_sentence_is_not_its_text(read):
    content = "Sentence #,Sentence,POS,Tag\nSentence: 1,Anna lebt,\"['NN', 'VB']\",\"['B-PER', 'O']\"\n"

    assert read(content, "ner.csv") == [Sentence(("Anna", "lebt"), ("B-PER", "O"))]


def test_a_table_of_latin_1_is_told_and_read_by_its_encoding(read):
    content = "Sentence #,Word,POS,Tag\nSentence: 1,Caf\xe9,NN,B-org\n,.,.,O\nSentence: 2,Ja,UH,O\n".encode("latin-1")

    with pytest.raises(CorpusError, match=r"ner\.csv:2: .*set corpus\.encoding=latin-1"):
        read(content, "ner.csv")
    assert read(content, "ner.csv", encoding="latin-1") == [
        Sentence(("Caf\xe9", "."), ("B-org", "O")),
        Sentence(("Ja",), ("O",)),
    ]


@pytest.mark.parametrize("name", ["label", "entities", "spans", "annotations"])
@pytest.mark.parametrize(
    "spans",
    [
        '[{""start"":0,""end"":4,""text"":""Kiel"",""labels"":[""LOC""]}]',
        "[[0, 4, 'LOC']]",
        '[[0,4,""LOC""]]',
        "[(0, 4, 'LOC')]",
        "((0, 4, 'LOC'),)",
        "{'entities': [(0, 4, 'LOC')]}",
    ],
)
def test_spans_in_a_cell_are_refused_and_not_lost(read, name, spans):
    content = f'text,id,{name},annotator\nes regnet,2,[],1\nKiel,1,"{spans}",1\n'

    with pytest.raises(CorpusError, match=rf"the column '{name}' holds spans; export JSON or JSON-MIN"):
        read(content, "export.csv")
    assert read(content, "export.csv", columns="text")[1] == Sentence(("Kiel",))


@pytest.mark.parametrize("cell", ["positive", "['politics']", "[]", "(see below)", "{urgent}"])
def test_classes_beside_a_text_are_no_spans(read, cell):
    assert read(f'text,label\nKiel,"{cell}"\n', "x.csv") == [Sentence(("Kiel",))]


def test_texts_of_a_table_are_unlabelled_sentences(read):
    content = 'id,text\n1,Anna lebt.\n2,"In Kiel, heute"\n'

    assert [sentence.words for sentence in read(content, "x.csv", split_text=unicode_words)] == [
        ("Anna", "lebt", "."),
        ("In", "Kiel", ",", "heute"),
    ]
    assert read("text\nAnna lebt, hier\n", "x.csv") == [Sentence(("Anna", "lebt,", "hier"))]


@pytest.mark.parametrize("cell", ["B-PER O", "['B-PER', 'O']", "B-PER,O"])
def test_tags_beside_a_text_belong_to_its_words(read, cell):
    assert read(f'id;text;labels\n1;Anna lebt;"{cell}"\n', "x.csv") == [Sentence(("Anna", "lebt"), ("B-PER", "O"))]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "a,b\n1,2\n", "no column tells that it holds words or texts; its first row is 'a | b'"),
        ("x.csv", "word,tag\nAnna,B-PER\nKiel\n", r":3: expected 2 columns \(word, tag\), found 1: 'Kiel'"),
        ("x.csv", 'word,tag\n"Anna,B-PER\nKiel,O\n', r":2: no CSV .*is a quotation mark not closed"),
        ("x.csv", "word,tag\nAnna,B-PER\n,O\n", ":3: empty word"),
        ("x.csv", "word,mine\nAnna,B-PER\nlebt,O\n", r"'mine' looks like tags.*corpus\.columns=word,mine"),
        ("x.csv", "text,tags\nAnna lebt,B-PER\n", ":2: 2 words between spaces, but 1 tags"),
        ("x.tsv", 'sentence_id\tword\ttag\n1\tAnna\tO\n1\t"\t"\tO\n', ":3: expected 3 columns .*found 4.*as CSV"),
        ("x.csv", "sentence,word,tag\n1,Anna,PER\n", r":2: found tag 'PER'.*corpus\.scheme=plain"),
        ("x.tsv", "1\tAnna\tO\n2-3\tim\tB-LOC\n2\tin\tO\n1\tx\tO\n2\ty\tO\n", ":2: the tag B-LOC stands at 2-3"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_refused_with_its_line(read, name, content, message):
    with pytest.raises(CorpusError, match=message):
        read(content, name)


def test_columns_of_a_table_are_asked_for_by_name_or_number(read):
    content = "nr,mine,gold,other\n0,Anna,B-PER,O\n0,lebt,O,O\n1,hier,O,B-LOC\n"

    by_name, by_number = read(content, "x.csv", columns="mine,other"), read(content, "x.csv", columns="1,2")

    assert by_name == [Sentence(("Anna", "lebt"), ("O", "O")), Sentence(("hier",), ("B-LOC",))]
    assert by_number == [Sentence(("Anna", "lebt"), ("B-PER", "O")), Sentence(("hier",), ("O",))]


def test_a_table_of_numbered_sentences_without_a_column_of_words_is_refused_by_its_names(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("Sentence #,ord,POS,Tag\nSentence: 1,Anna,NN,B-PER\nSentence: 2,Kiel,NN,B-LOC\n", encoding="utf-8")

    with pytest.raises(CorpusError, match="no column of words or texts among Sentence #, ord, POS, Tag"):
        list(read_corpus(path))
