# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A file of secrets is edited as text: what is not replaced stays byte by byte."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.luxima.observability.plugins.module_utils._secrets import document
from hypothesis import given
from hypothesis import strategies as st

TEXT = """---
# Ours.
one: !vault |
  $ANSIBLE_VAULT;1.1;AES256
  3131
  3232

two: plain   # to be replaced soon
three: {a: [1, 2]}
# the last one
four: >-
  folded
  text
"""


def test_what_is_not_replaced_stays_with_its_comments() -> None:
    new = document.written(
        TEXT, {"two": document.plain("two", "x"), "five": document.vaulted("five", "A\nB\n")}
    )
    assert (
        new == TEXT.replace("two: plain   # to be replaced soon", 'two: "x"') + "five: !vault |\n  A\n  B\n"
    )


def test_a_vaulted_value_is_replaced_whole() -> None:
    new = document.written(TEXT, {"one": document.vaulted("one", "C\nD")})
    assert new.startswith("---\n# Ours.\none: !vault |\n  C\n  D\n\ntwo: plain")


@pytest.mark.parametrize("text", ["", "---\n", "---", "# nothing yet\n", "---\n# nothing yet\n"])
def test_an_empty_file_gets_its_first_value(text: str) -> None:
    new = document.written(text, {"a": document.plain("a", "x")})
    assert yaml.safe_load(new) == {"a": "x"}
    assert new.startswith(text)


def test_the_last_value_without_a_line_end_is_replaced() -> None:
    assert (
        document.written("a: b", {"a": document.plain("a", "c"), "d": document.plain("d", "e")})
        == 'a: "c"\nd: "e"\n'
    )


@pytest.mark.parametrize("text", ["", "---\n", "# Nothing yet.\n", "---\n# Nothing yet.\n"])
def test_a_file_without_variables_takes_its_first(text: str) -> None:
    assert document.read(text) == {}
    assert yaml.safe_load(document.written(text, {"a": document.plain("a", "b")})) == {"a": "b"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: 1\na: 2\n", "a stands there twice (line 2)"),
        ("{a: 1}\n", "no list of variables"),
        ("- a\n", "no list of variables"),
        ("a: [1\n", "no YAML in line"),
        ("a: &x 1\nb: *x\n", "it is no YAML"),
        ("a: 1\n...\n", "cannot be edited|no YAML"),
    ],
)
def test_what_cannot_be_edited_is_refused(text: str, why: str) -> None:
    with pytest.raises(document.DocumentError, match=why.replace("(", "[(]").replace(")", "[)]")):
        document.written(text, {"a": document.plain("a", "x"), "z": document.plain("z", "y")})


@pytest.mark.parametrize("name", ["no", "on", "null", "1"])
def test_a_name_that_yaml_reads_otherwise_is_quoted(name: str) -> None:
    text = document.written("", {name: document.plain(name, "x")})
    assert yaml.safe_load(text) == {name: "x"}
    assert list(document.read(document.vaulted(name, "A\nB\n"))) == [name]
    assert document.vaulted(name, "A").startswith(f"'{name}': ")


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,6}", fullmatch=True), st.text(max_size=20), min_size=1, max_size=5
    ),
    st.text(max_size=30),
)
def test_any_text_is_read_back_and_nothing_else_changes(values: dict[str, str], value: str) -> None:
    text = yaml.safe_dump(values, allow_unicode=True)
    name = next(iter(values))
    new = document.written(
        text, {name: document.plain(name, value), "added_one": document.plain("added_one", value)}
    )
    assert yaml.safe_load(new) == {**yaml.safe_load(text), name: value, "added_one": value}
