"""Which tasks a sweep has, and what each of them gets."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.errors import RequestError
from stoke.request.sweep_files import read_lines, read_table
from stoke.request.sweep_values import (
    MOST_CHARACTERS,
    Axis,
    check_templates,
    make_table,
    parse_each,
    task_arguments,
    task_request,
    task_variables,
)

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True).filter(lambda name: name != "id")
VALUES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t{}'\"$`;&"), min_size=1
)
IN_COMMAND = VALUES.filter(
    lambda value: "," not in value and not re.fullmatch(r"-?\d+\.\.-?\d+", value)
)


def table_of(*each: str, in_pairs: bool = False) -> list[tuple[str, ...]]:
    return make_table([parse_each(one) for one in each], in_pairs=in_pairs).rows


def test_a_grid_has_every_combination_and_the_last_name_changes_fastest() -> None:
    assert table_of("lr=0.1,0.01", "seed=1..3") == [
        ("0.1", "1"), ("0.1", "2"), ("0.1", "3"), ("0.01", "1"), ("0.01", "2"), ("0.01", "3"),
    ]  # fmt: skip


def test_ranges_count_down_too_and_mix_with_values() -> None:
    assert table_of("n=2..-1,x,7..7") == [("2",), ("1",), ("0",), ("-1",), ("x",), ("7",)]


def test_pairs() -> None:
    assert table_of("a=1,2", "b=x,y", in_pairs=True) == [("1", "x"), ("2", "y")]
    with pytest.raises(RequestError) as caught:
        table_of("a=1,2", "b=1..3", in_pairs=True)
    assert caught.value.why == "takes values of the same number (--each a: 2, --each b: 3)"


@given(st.dictionaries(NAMES, st.lists(IN_COMMAND, min_size=1, max_size=4), min_size=1, max_size=3))
def test_any_values_of_a_grid_arrive_as_they_are(columns: dict[str, list[str]]) -> None:
    axes = [parse_each(f"{name}={','.join(values)}") for name, values in columns.items()]
    table = make_table(axes, in_pairs=False)
    assert table.names == tuple(columns)
    assert table.rows == list(product(*columns.values()))


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), st.lists(VALUES, max_size=4))
def test_arguments_hold_each_value_once_and_literally(
    values: dict[str, str], others: list[str]
) -> None:
    plain = [other.replace("{", "(") for other in others]
    names, row = tuple(values), tuple(values.values())
    found = task_arguments(plain, names, row, 1)
    assert found[: len(plain)] == plain
    expected: list[str] = []
    for name, value in values.items():
        if name == "line":
            expected.append(value)
        elif value.startswith("-"):
            expected.append(f"--{name}={value}")
        else:
            expected += [f"--{name}", value]
    assert found[len(plain) :] == expected
    templates = [f"<{{{name}}}>" for name in names]
    assert task_arguments(templates, names, row, 1) == [f"<{value}>" for value in row]


def test_templates() -> None:
    arguments = ["{lr}.csv", "{id}-{{lr}}", '{"a": {lr}}', "{ lr }", "{}"]
    filled = task_arguments(arguments, ("lr", "seed"), ("{seed}", "3"), 17)
    assert filled == ["{seed}.csv", "17-{lr}", '{"a": {seed}}', "{ lr }", "{}", "--seed", "3"]
    check_templates(arguments, ("lr",))
    with pytest.raises(RequestError) as caught:
        check_templates(["--out", "{rate}"], ("lr", "seed"))
    assert caught.value.why == "{rate} names no value of the sweep; its values are: lr, seed"


def test_the_text_of_the_hint_is_the_text_itself() -> None:
    with pytest.raises(RequestError) as caught:
        check_templates(["{rate}"], ("lr",))
    written = (caught.value.hint or "").removeprefix("for the text itself write ")
    check_templates([written], ("lr",))
    assert task_arguments([written], ("lr",), ("1",), 1)[0] == "{rate}"


def test_variables() -> None:
    assert task_variables(("lr", "top-k", "a.b"), ("1", "2", "3"), 4) == {
        "STOKE_TASK_ID": "4", "STOKE_TASK_LR": "1", "STOKE_TASK_TOP_K": "2", "STOKE_TASK_A_B": "3",
    }  # fmt: skip


def test_a_tasks_request_changes_arguments_and_variables_only() -> None:
    request = {"code": "1", "args": ["a"], "env": {"X": "y", "STOKE_TASK_LR": "old"}}
    made = task_request(request, ("lr",), ("2",), 1)
    assert made == {
        "code": "1",
        "args": ["a", "--lr", "2"],
        "env": {"X": "y", "STOKE_TASK_ID": "1", "STOKE_TASK_LR": "2"},
    }
    assert request["args"] == ["a"]


@pytest.mark.parametrize(
    ("each", "why"),
    [
        (["lr"], "'lr' has no values"),
        (["=1"], "'' is not the name of a value"),
        (["1a=1"], "'1a' is not the name of a value"),
        (["a b=1"], "'a b' is not the name of a value"),
        (["id=1"], "id is the number of the task"),
        (["lr="], "value 1 of lr is empty"),
        (["lr=1,,2"], "value 2 of lr is empty"),
        (["lr=1,2,"], "value 3 of lr is empty"),
        (["lr=1", "lr=2"], "the name lr is used twice"),
        (["lr=1", "LR=2"], "lr and LR would both be in STOKE_TASK_LR"),
        (["a-b=1", "a_b=2"], "a-b and a_b would both be in STOKE_TASK_A_B"),
        (["ID=1"], "id and ID would both be in STOKE_TASK_ID"),
        (["x=a\x1b[31m"], "value 1 of x has the control character U+001B at character 2"),
        (["x=1,a\0b"], "value 2 of x has the control character U+0000 at character 2"),
        (["x=\udc80"], "value 1 of x has the control character U+DC80"),
        (["x=" + "y" * (MOST_CHARACTERS + 1)], "value 1 of x has 32,769 characters"),
        (["n=1..10000000"], "the sweep would have 10,000,000 tasks; at most 100,000"),
        (["a=1..3000", "b=1..4000"], "the sweep would have 12,000,000 tasks"),
        (["n=1..999999999999999"], "the sweep would have 999,999,999,999,999 tasks"),
    ],
)
def test_refused_values(each: list[str], why: str) -> None:
    with pytest.raises(RequestError) as caught:
        table_of(*each)
    assert why in caught.value.why


def test_quotes_newlines_and_braces_are_values() -> None:
    value = "a'b\"c\n{{ x }} $(true) `id` \\"
    assert table_of(f"x={value}") == [(value,)]


def axis(path: Path, text: str | bytes) -> Axis:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_lines(str(path)) if path.suffix == ".txt" else read_table(str(path))


def test_files(tmp_path: Path) -> None:
    lines = axis(tmp_path / "a.txt", "one\r\ntwo words\n")
    assert (lines.names, list(lines.rows)) == (("line",), [("one",), ("two words",)])
    table = axis(tmp_path / "a.csv", '\ufefflr,note\n0.1,"a, ""b""\nc"\n2,x\n')
    assert (table.names, list(table.rows)) == (("lr", "note"), [("0.1", 'a, "b"\nc'), ("2", "x")])
    rows = [{"lr": 0.1, "on": True}, {"on": False, "lr": 3}]
    found = axis(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert (found.names, list(found.rows)) == (("lr", "on"), [("0.1", "true"), ("3", "false")])


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.txt", "", "has no tasks"),
        ("a.txt", "a\n\nb\n", "line 2 of {} is empty"),
        ("a.txt", "a\nb\x07\n", "line 2 of {} has the control character U+0007"),
        ("a.txt", b"a\n\xff\n", "line 2 of {} is not UTF-8"),
        ("a.txt", "x\n" * 100_001, "has more than 100,000 tasks"),
        ("a.csv", "", "has no tasks"),
        ("a.csv", "lr,seed\n", "has no tasks"),
        ("a.csv", "\n1,2\n", "line 1 of {} is empty; it has to name the columns"),
        ("a.csv", "0.1,2\n0.2,3\n", "line 1 of {} has to name the columns: '0.1' is not the name"),
        ("a.csv", "a,b\n1,2\n3\n", "line 3 of {} has 1 values for 2 columns"),
        ("a.csv", "a,b\n1,2,3\n", "line 2 of {} has 3 values for 2 columns"),
        ("a.csv", "a,b\n1,\n", "b in line 2 of {} is empty"),
        ("a.csv", 'a\n"1\n', "of {} is no CSV"),
        ("a.jsonl", '{"a": 1}\n{"a": }\n', "line 2 of {} is no JSON"),
        ("a.jsonl", '{"a": 1}\n[1]\n', "line 2 of {} is no object with values"),
        ("a.jsonl", '{"a": 1}\n{"b": 1}\n', "line 2 of {} has other names than line 1: b"),
        ("a.jsonl", '{"a": 1, "a": 2}\n', "line 1 of {} has a twice"),
        ("a.jsonl", '{"a": null}\n', "a in line 1 of {} is neither a text nor a number"),
        ("a.jsonl", '{"a": ""}\n', "a in line 1 of {} is empty"),
        ("a.jsonl", "", "line 1 of {} is no JSON"),
        ("a.yaml", "a: 1", "is neither a .csv nor a .jsonl file"),
    ],
)
def test_refused_files(tmp_path: Path, name: str, text: str | bytes, why: str) -> None:
    path = tmp_path / name
    with pytest.raises(RequestError) as caught:
        axis(path, text)
    assert why.format(path) in caught.value.why
