"""Tokens, passwords and the environment: they come into no recipe, so into nothing that is saved or shown."""

from dataclasses import fields, is_dataclass

import pytest
from runs import TEACHER, brief, run_ranks

from xlner.config.load import KINDS, load_recipe
from xlner.errors import RecipeError

TOKEN = "hf_" + "aB3" * 11 + "x"  # as long as those of the hub


def text_keys(schema):
    """Every section and key of a schema that holds text."""
    for spec in fields(schema):
        if is_dataclass(spec.type):
            yield from text_keys(spec.type)
        elif spec.type in (str, "str"):
            yield schema, spec.name


TEXT_KEYS = sorted({pair for schema, _ in KINDS.values() for pair in text_keys(schema)}, key=str)


@pytest.mark.parametrize(
    ("schema", "name"), TEXT_KEYS, ids=lambda part: part if isinstance(part, str) else part.__name__
)
@pytest.mark.parametrize("text", [TOKEN, f"a/{TOKEN}.txt", "https://anna:geheim123@example.org/x"])
def test_no_key_of_a_recipe_takes_a_token_or_a_password_and_none_is_shown(schema, name, text):
    with pytest.raises(RecipeError, match="looks like an access token or a password") as refused:
        schema(**{name: text})

    assert TOKEN not in str(refused.value)
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("argument", ["run={}", "seed={}", "hub_token={}", "{}", "target={}", "optimization={}"])
def test_a_token_on_the_command_line_is_refused_before_any_message_could_show_it(argument):
    with pytest.raises(RecipeError, match="looks like an access token") as refused:
        load_recipe("distill", ["run=x", argument.format(TOKEN)])

    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "https://geheim123@example.org/x",
        "https://anna:@example.org/x",
        "https://example.org/x?token=geheim123",
        "https://example.org/x?page=2&api_key=geheim123",
        "https://bucket.example.org/x?X-Amz-Signature=geheim123",
        "https://example.org/x?sv=1&sig=geheim123",
        "https://example.org/x#access_token=geheim123",
    ],
)
def test_an_address_that_holds_a_secret_in_any_place_is_refused(address):
    with pytest.raises(RecipeError, match="looks like an access token") as refused:
        load_recipe("teacher", [f"data={address}"])

    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("address", ["https://example.org/x?page=2#top", "hub:a/b@main", "s3://bucket/x@2"])
def test_an_address_without_a_secret_is_taken(address):
    assert load_recipe("teacher", [f"data={address}"]).data == address


@pytest.mark.parametrize("content", ["run: {}\n", "hub_token: {}\n", "# {}\n", "run: [{}\n"])
def test_a_token_in_a_recipe_file_is_refused_before_any_message_could_show_it(tmp_path, content):
    (tmp_path / "de.yaml").write_text("target: de\n" + content.format(TOKEN))

    with pytest.raises(RecipeError, match=r"de\.yaml: holds what looks like an access token") as refused:
        load_recipe("distill", [f"target={tmp_path / 'de.yaml'}"])

    assert TOKEN not in str(refused.value)


def test_names_that_only_resemble_a_token_are_taken():
    recipe = load_recipe("teacher", ["data=hf_datasets/en", "run=half_a_hundred", "encoder_revision=" + "0" * 40])

    assert (recipe.data, recipe.run) == ("hf_datasets/en", "half_a_hundred")


@pytest.mark.slow
def test_nothing_of_the_environment_and_no_recipe_comes_into_the_files_of_a_run_or_its_tracker(teaching, tmp_path):
    secrets = {"HF_TOKEN": TOKEN, "MY_PASSWORD": "geheim-4711"}

    (finished,) = run_ranks(
        [secrets], TEACHER, *brief(teaching), "run=first", "trackers=tensorboard", cwd=tmp_path, meanwhile=None
    )

    files = {path: path.read_bytes() for path in (tmp_path / "runs" / "first").rglob("*") if path.is_file()}
    events = [content for path, content in files.items() if "tfevents" in path.name]
    values = [argument.partition("=")[2] for argument in teaching if "/" in argument]
    assert finished.status == 0
    for secret in secrets.values():
        assert secret not in finished.stdout + finished.stderr
        assert [path for path, content in files.items() if secret.encode() in content] == []
    assert len(values) == 2
    assert any(b"recognizer" in content for content in events)
    others = {path: content for path, content in files.items() if path.name not in ("recipe.yaml", "report.json")}
    assert [path for path, content in others.items() if any(value.encode() in content for value in values)] == []
