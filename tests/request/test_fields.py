"""The table of fields: whole, and the only place where a field is declared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stoke.backend.api import Capabilities
from stoke.cli.commands.run import command as run
from stoke.cli.options import request_from
from stoke.config.model import Config
from stoke.errors import RequestError
from stoke.request.fields import FIELDS, get_value, masked_fields, refusals, rows, unsupported
from stoke.request.schema import request_schema
from stoke.request.spec import IndexSettings, JobSpec, make_spec

NOTHING = Capabilities(False, False, False, False, "")
EVERYTHING = Capabilities(
    True, True, True, True, "", named_secrets=True, labels=True, pods=True, workspaces=True
)


def test_the_table_has_each_field_of_a_request_once() -> None:
    names = [field.name for field in FIELDS]
    index = [f"index.{name}" for name in IndexSettings.model_fields]
    assert sorted(names) == sorted(
        [*(name for name in JobSpec.model_fields if name != "index"), *index]
    )


def test_no_two_fields_share_an_option_or_a_label() -> None:
    flags = [flag for field in FIELDS if field.option for flag in field.option.flags]
    assert len(flags) == len(set(flags))
    labels = [field.label for field in FIELDS]
    assert len(labels) == len(set(labels))
    # The form's column for labels is 13 wide.
    assert all(len(label) <= 12 for label in labels)


@pytest.mark.parametrize(
    "field", [field for field in FIELDS if field.need], ids=lambda one: one.name
)
def test_each_capability_is_one_of_a_backend(field: Any) -> None:
    assert isinstance(getattr(NOTHING, field.need.capability), bool)


def test_fields_beyond_the_backends_capabilities_are_refused_one_by_one() -> None:
    spec = make_spec(
        {
            "code": "1",
            "memory": "1g",
            "image": "x",
            "secrets": {"A": "secret:login/key", "B": "env:HOME"},
        }
    )
    found = {error.field: error.what for error in refusals(spec, "toy", NOTHING)}
    assert found.keys() == {"memory", "image", "secrets.A"}
    assert "the toy backend sets no limits" in found["memory"]
    assert list(refusals(spec, "toy", EVERYTHING)) == []
    assert list(refusals(make_spec({"code": "1"}), "toy", NOTHING)) == []
    assert unsupported("toy", NOTHING).keys() == {
        *("system", "cpu", "memory", "shm_size", "image", "cpu_request", "memory_request"),
        *("profile", "labels", "annotations", "workspace"),
    }
    assert unsupported("toy", EVERYTHING) == {}


def test_zero_is_not_passed_over() -> None:
    options = run.make_context("run", ["--cpu", "0", "-c", "1"]).params
    for name in ("backend", "detach", "as_json", "quiet"):
        options.pop(name)
    with pytest.raises(RequestError) as caught:
        request_from(Config(), **options)
    assert caught.value.field == "cpu"


def test_rows_mask_values_that_look_secret() -> None:
    spec = make_spec({"code": "1", "env": {"API_TOKEN": "hunter2", "MODE": "fast"}, "memory": "2g"})
    found = dict(rows(spec.model_dump(mode="json")))
    assert found["environment"] == ["API_TOKEN=***", "MODE=fast"]
    assert found["memory"] == ["2.0 GiB"]
    assert "code" not in found and "python" not in found
    assert masked_fields(spec.model_dump(mode="json"))["env"]["API_TOKEN"] == "***"
    assert get_value(spec, "index.url") is None


def test_the_schema_describes_every_field() -> None:
    schema = request_schema()
    assert schema["anyOf"] == [
        {"required": [start]} for start in ("code", "module", "exec", "shell")
    ]
    assert schema["properties"].keys() == JobSpec.model_fields.keys()
    for field in FIELDS:
        top, _, key = field.name.partition(".")
        table = schema["$defs"]["IndexSettings"]["properties"] if key else schema["properties"]
        assert table[key or top]["description"] == field.help
    memory = schema["properties"]["memory"]
    assert {"type": "string", "examples": ["512m", "2g", "1.5GiB"]} in memory["anyOf"]


# --- a field is one entry ------------------------------------------------------------------------

ADDED = """
from stoke.request import fields, spec, values
fields.FIELDS += (
    fields.Field(
        "dummy", "dummy field", "A field that a test adds.", values.Value(),
        fields.Option(("--dummy",), "TEXT"), widget=fields.Widget("dummy placeholder"),
        need=fields.Need("images", "has no dummies", hint="leave it out"),
    ),
)
class Wider(spec.JobSpec):
    dummy: str | None = None
spec.JobSpec = Wider
"""
"""What adding a field takes: an entry in the table, and its type in JobSpec."""


def with_dummy(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"{ADDED}\n{code}", *words],
        capture_output=True,
        text=True,
        timeout=120,
    )


def stoke(*words: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own whose table has one more field."""
    return with_dummy("from stoke.cli.main import main\nraise SystemExit(main())", *words)


def test_an_added_field_has_an_option_a_check_and_a_place_in_json() -> None:
    assert "--dummy TEXT" in stoke("run", "--help").stdout
    assert "A field that a test adds." in stoke("run", "--help").stdout
    schema = json.loads(stoke("schema").stdout)
    assert schema["properties"]["dummy"]["description"] == "A field that a test adds."
    made = stoke("render", "json", "--dummy", "a b", "-c", "print(1)")
    assert json.loads(made.stdout)["dummy"] == "a b"
    refused = stoke("run", "-b", "local", "--dummy", "x", "-c", "print(1)")
    assert refused.returncode == 2
    assert "dummy: the local backend has no dummies" in refused.stderr
    assert "leave it out" in refused.stderr


def test_an_added_field_is_shown_and_is_in_the_command_line(tmp_path: Path) -> None:
    code = """
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.request.command_line import command_line
asked = spec.make_spec({"code": "1", "dummy": "it's"})
with History() as history:
    job = Job('a-aaaaaa', 'a', 'docker', 'default', JobState.SUCCEEDED, 1.0, finished_at=2.0)
    history.add(job, asked.model_dump_json(), 'n')
print(command_line(asked, "docker", "a").text)
from stoke.cli.main import main
main()
"""
    done = with_dummy(code, "show", "a-aaaaaa")
    assert done.returncode == 0, done.stderr
    line, *shown = done.stdout.splitlines()
    assert "--dummy 'it'\"'\"'s'" in line
    assert any(row.split() == ["dummy", "field", "it's"] for row in shown)


def test_an_added_field_is_in_the_form() -> None:
    code = """
import asyncio
from stoke.config.model import Config
from tui.app import StokeApp
from tui.new_job import form
from tui.new_job.form_field import FormField
from tui.new_job.screen import NewJobScreen
from tests.tui.conftest import until
from tui import ui_state

ui_state.save("screens", {"welcomed": True})

async def main():
    app = StokeApp(Config())
    async with app.run_test(size=(120, 80)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: isinstance(app.screen, NewJobScreen))
        await until(pilot, lambda: app.screen.query("#field-dummy"))
        field = app.screen.query_one("#field-dummy", FormField)
        await until(pilot, lambda: field.control.disabled)
        print(field.control.placeholder)
        field.text = "typed"
        print(form.build(app.screen._now().__class__("1", "local", {"dummy": field.text}))[0].dummy)
        error = field.query_one(".field-error")
        await until(pilot, lambda: error.display)
        print(error.render())
asyncio.run(main())
"""
    done = with_dummy(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "local has no dummies",
        "typed",
        "the local backend has no dummies; leave it out",
    ]
