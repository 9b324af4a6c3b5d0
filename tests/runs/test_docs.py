"""What the documentation says is true where a machine can tell: commands, files, links, lengths of lines."""

import argparse
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import typer
import yaml
from accelerate.commands.launch import launch_command_parser
from conftest import REPOSITORY

import xlner
from xlner.cli import app
from xlner.config.load import load_recipe

PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")], key=lambda path: (path.parent.name, path.name)
)
NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]
SCRIPTS = {
    "train_teacher.py": "teacher",
    "distill.py": "distill",
    "adapt_encoder.py": "adapt",
    "tag_corpus.py": "tag",
}
# What does the same as a command of the program.
PROGRAMS = {
    "train-teacher": "train_teacher.py",
    "distill": "distill.py",
    "adapt": "adapt_encoder.py",
    "tag-corpus": "tag_corpus.py",
}
LONGEST_LINE = 100
# Whose lines are others' to break: tables of figures with long sentences among them.
LONG_LINES = {"docs/results.md", "docs/results_small_encoder.md"}
# Files and folders that a reader has, or that an earlier command makes: these and all in them.
OF_THE_READER = re.compile(
    r"(runs|data|my|onnx|spacy|corpus|tagged|fixed|wikineural|FOLDER|FILE|IN|OUT|MODEL|DATA|ENCODER|TEXT|USER)(/.*)?"
    r"|(letters|my|annotated|other|big|tagged|names|marked|small|test|annotations|eng|2023|2024|train|dev|gold|val)"
    r"(\.\w+)?|x\.conll"
)


def blocks(text: str) -> Iterator[tuple[str, bool]]:
    """Each code block of a page that may hold commands, and whether it is marked to be run."""
    fenced = r"(<!-- run -->\n)?```sh\n(.*?)```"
    for mark, block in re.findall(fenced, text, re.DOTALL):
        yield block, bool(mark)
    without_fences = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for block in re.findall(r"(?:^    .*\n)+", without_fences, re.MULTILINE):
        yield re.sub(r"^    ", "", block, flags=re.MULTILINE), False


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a page, as lists of words: pipes and redirections part them."""
    loops = dict(re.findall(r"\bfor (\w+) in (\w+)", text))  # each variable with one of its values
    for block, _ in blocks(text):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            if not re.match(r"(\w+=\S+ )?(xlner|python|accelerate|make|zcat|head) ", line):
                continue
            line = re.sub(r"\$(\w+)", lambda variable: loops[variable[1]], line)
            words = shlex.shlex(line, posix=True, punctuation_chars="|<>;&")
            words.whitespace_split = True
            command: list[str] = []
            for word in words:
                if word in ("|", ";", "&&", ">", "<"):
                    yield command
                    command = [] if word not in "<>" else [""]
                else:
                    command.append(word)
            yield command


COMMANDS = sorted(
    {(name, shlex.join(found)) for name, page in zip(NAMES, PAGES, strict=True) for found in commands(page.read_text())}
)


@pytest.mark.parametrize(("page", "command"), [pytest.param(*one, id=" ".join(one)[:90]) for one in COMMANDS])
def test_each_command_of_the_documentation_is_understood(page, command, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    words = shlex.split(command)
    if words and "=" in words[0]:
        words = words[1:]  # a variable of the environment
    if words[:2] == ["accelerate", "launch"]:
        found = launch_command_parser().parse_args(words[2:])
        first = (
            ["xlner"] if (found.module, found.training_script) == (True, "xlner") else ["python", found.training_script]
        )
        words = [*first, *found.training_script_args]
    if words[:1] == ["make"]:
        targets = re.findall(r"^([\w-]+):", Path("Makefile").read_text(), re.MULTILINE)
        assert [word for word in words[1:] if "=" not in word and word not in targets] == []
    elif words[:1] == ["xlner"] and words[1] in PROGRAMS:
        assert words[1] in typer.main.get_command(app).commands
        check_script(PROGRAMS[words[1]], words[2:], monkeypatch)
    elif words[:1] == ["xlner"]:
        check_program(words[1:])
    elif words[:1] == ["python"] and words[1:2] not in (["-c"], ["-m"], ["SCRIPT"]):
        assert Path(words[1]).is_file(), f"{page}: no script {words[1]}"
        check_script(words[1], words[2:], monkeypatch)


def check_program(arguments: list[str]) -> None:
    """Options and values, by the parser of the command itself, which does not run it."""
    program = typer.main.get_command(app)
    if arguments[0].startswith("-"):
        program.make_context("xlner", arguments, resilient_parsing=True)
        return
    command = program.commands[arguments[0]]
    if "--help" not in arguments:
        context = command.make_context(arguments[0], arguments[1:])
        for key, value in context.params.items():
            for name in value if isinstance(value, list) else [value] if key != "part" else []:
                if isinstance(name, str) and "/" in name:
                    check_file(name)


def check_script(script: str, arguments: list[str], monkeypatch) -> None:
    if script in SCRIPTS:
        if arguments != ["--help"]:
            load_recipe(SCRIPTS[script], arguments)
            for argument in arguments:
                for name in argument.partition("=")[2].split(","):
                    if "/" in name and not argument.startswith("encoder="):  # names of the hub have a slash, too
                        check_file(name)
        return

    class ParsedError(Exception):
        """The arguments were understood; what the script does with them is not done."""

    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_end(parser, *given, **named):
        parse_args(parser, *given, **named)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.setattr(sys, "path", [str(Path(script).parent), *sys.path])
    with pytest.raises(ParsedError):  # SystemExit: an option that is not there
        runpy.run_path(script, run_name="__main__")


def check_file(name: str) -> None:
    assert OF_THE_READER.fullmatch(name) or Path(name).exists(), f"no {name}, and none that a reader has"


def test_enough_commands_are_found_and_a_wrong_one_is_refused(monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    found = {command for _, command in COMMANDS}

    assert len(found) > 80
    assert {"accelerate launch train_teacher.py recipe=en", "accelerate launch distill.py target=de"} <= found
    for wrong in (["tag", "m", "--colums", "1"], ["tga"], ["tag", "nowhere/m", "x.txt"]):
        with pytest.raises((Exception, SystemExit)):
            check_program(wrong)
    for script, wrong in (("distill.py", ["target=de", "epochs=3"]), ("data_scripts/e5_small.py", ["--oot", "x"])):
        with pytest.raises((Exception, SystemExit)):
            check_script(script, wrong, monkeypatch)


@pytest.mark.parametrize("name", NAMES)
def test_no_line_of_prose_is_too_long(name):
    if name in LONG_LINES:
        pytest.skip("tables and what stands between them")
    text = re.sub(r"```.*?```", "", (REPOSITORY / name).read_text(encoding="utf-8"), flags=re.DOTALL)

    long = [line for line in text.splitlines() if len(line) > LONGEST_LINE and not line.startswith(("|", "    ", "!["))]

    assert long == []


def test_the_readme_is_short():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)

    assert [line for line in text.splitlines() if len(line) > LONGEST_LINE] == []
    assert [part for part in prose.split("\n\n") if len(part.splitlines()) > 5 and "|---" not in part] == []
    assert text.count("```") == 6  # three blocks of code
    assert len(re.findall(r"<!-- results: from docs/results.md -->\n\|", text)) == 1


def test_the_figures_of_the_readme_stand_in_the_results():
    row = re.compile(r"^\| (\w+) \| ([\d.]+) \| \*\*([\d.]+)\*\* \| ([+-][\d.]+) \|", re.MULTILINE)
    readme, results = ((REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "docs/results.md"))

    found = row.findall(readme)

    assert len(found) == 5
    for target, teacher, student, gain in found:
        (line,) = [line for line in results.splitlines() if line.startswith(f"| {target} | {teacher}")]
        assert f"| {student} " in line.replace("**", "")
        assert float(student) - float(teacher) == pytest.approx(float(gain), abs=0.011)


@pytest.mark.parametrize("name", NAMES)
def test_each_link_leads_somewhere(name):
    page = REPOSITORY / name
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)

    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{name}: no {target}"
        if anchor:
            assert anchor in anchors(linked), f"{name}: no heading for {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_each_page_stands_in_the_index():
    index = (REPOSITORY / "docs/README.md").read_text(encoding="utf-8")

    assert [page.name for page in (REPOSITORY / "docs").glob("*.md") if f"({page.name}" not in index] == ["README.md"]


def test_the_picture_is_well_formed_and_brings_its_own_background():
    root = ElementTree.parse(REPOSITORY / "docs/flow.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    width, height = map(float, root.get("viewBox").split()[2:])

    background = root.find(f"{space}rect")

    assert background.get("fill") == "#ffffff"  # as readable on a dark page as on a light one
    assert float(background.get("width")) > width - 5
    for text in root.iter(f"{space}text"):
        half = len(text.text) * 4.2  # about what a letter takes at these sizes, in a wide font
        assert half < float(text.get("x")) < width - half
        assert 0 < float(text.get("y")) < height


def test_the_reference_is_what_the_code_says_today():
    pages = runpy.run_path(str(REPOSITORY / "docs/make_reference.py"))["pages"]()

    assert len(pages) == 2
    for name, text in pages.items():
        told = f"docs/{name} is stale: run python docs/make_reference.py"
        assert (REPOSITORY / "docs" / name).read_text(encoding="utf-8") == text, told


def test_the_tables_that_contributors_are_sent_to_are_there():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "xlner").rglob("*.py"))

    tables = re.findall(
        r"`([A-Z_]{5,})`", text.partition("## Where something new goes")[2].partition("## What stays")[0]
    )

    assert len(tables) > 10
    assert [name for name in tables if not re.search(rf"^{name}\b.* = \{{", code, re.MULTILINE)] == []


def test_the_workflow_and_the_citation_are_what_they_say():
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = [name.rpartition(":: ")[2] for name in project["classifiers"] if "Python :: 3." in name]

    assert workflow["jobs"]["all"]["strategy"]["matrix"]["python"] == versions
    assert os.access(REPOSITORY / ".ci/run", os.X_OK)
    assert (citation["version"], citation["license"]) == (xlner.__version__, project["license"])


QUICKLY = ("--epochs", "12", "--batch-size", "8", "--learning-rate", "1e-2")  # what a tiny encoder needs


def example(name, *arguments, cwd):
    """Runs a script of `examples/`; what it printed."""
    command = [sys.executable, REPOSITORY / "examples" / name, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_example_of_own_data_trains_scores_and_tags(tiny_encoder, small_data, tmp_path):
    out = example(
        "own_data.py", "--data", small_data, "--target", "de", "--encoder", tiny_encoder, *QUICKLY, cwd=tmp_path
    )

    assert re.search(r"^teacher: F1 [\d.]+\nstudent: F1 [\d.]+$", out, re.MULTILINE)
    assert out.count("[(") > 1  # entities, which a network that learnt nothing would not find
    tagged = example("tag.py", tmp_path / "runs/de/model", "Anna lebt in Kiel .", cwd=tmp_path)
    assert "Anna lebt in Kiel .\tAnna\tPER\t0\t4" in tagged


@pytest.mark.slow
def test_the_example_of_spans_learns_from_an_annotator(tiny_encoder, small_data, tmp_path):
    lines = (small_data / "de/train.txt").read_text(encoding="utf-8").splitlines()
    places = re.compile("Kiel|Ulm|Wien|Graz")
    records = [
        {"text": line, "spans": [{"start": m.start(), "end": m.end(), "label": "LOC"} for m in places.finditer(line)]}
        for line in lines
    ]
    (tmp_path / "spans.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    options = ("--data", small_data, "--target", "de", "--encoder", tiny_encoder)

    out = example("annotators_spans.py", "spans.jsonl", *options, *QUICKLY, cwd=tmp_path)

    assert out.splitlines()[-1] == "runs/de-spans/model finds LOC"


@pytest.mark.slow
def test_the_tutorial_runs_from_its_first_command_to_its_last(tiny_encoder, tmp_path):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'xlner[onnx]'")
    copy = tmp_path / "xlner"
    for name in ("xlner", "recipes", "docs"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for script in SCRIPTS:
        shutil.copy(REPOSITORY / script, copy)
    shutil.copytree(tiny_encoder, copy / "runs/e5")
    for path in (copy / "recipes/demo").glob("*/*.*"):  # the same commands, on few sentences
        end = "\n" if path.suffix == ".txt" else "\n\n"
        path.write_text(end.join(path.read_text(encoding="utf-8").split(end)[:40]) + end, encoding="utf-8")
    text = (copy / "docs/tutorial.md").read_text(encoding="utf-8")
    to_run = [block for block, is_run in blocks(text) if is_run]
    environment = os.environ | {
        "PYTHONPATH": str(copy),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
    }

    for block in to_run:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], cwd=copy, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"

    assert len(to_run) == 6
    assert len((copy / "small.jsonl").read_text(encoding="utf-8").splitlines()) == 20
