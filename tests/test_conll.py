import pytest
from corpus_samples import KIEL, RAIN, TWO_COLUMNS

from xlner.data import lines
from xlner.data.corpus import read_corpus
from xlner.errors import CorpusError
from xlner.text import Sentence


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
