"""Labels and annotations are checked by the rules of Kubernetes before anything is submitted."""

from __future__ import annotations

import pytest

from stoke.errors import RequestError
from stoke.request.spec import make_spec


@pytest.mark.parametrize(
    "labels",
    [
        {"team": "vision"},
        {"example.com/cost-centre": "4711"},
        {"team": ""},
        {"a" * 63: "b" * 63},
        {"a.b-c_d": "x.y-z_0"},
    ],
)
def test_labels_that_kubernetes_takes(labels: dict[str, str]) -> None:
    assert make_spec({"code": "1", "labels": labels}).labels == labels


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({"": "x"}, "is not a valid key"),
        ({"two words": "x"}, "is not a valid key"),
        ({"-team": "x"}, "is not a valid key"),
        ({"a/b/c": "x"}, "is not a valid key"),
        ({"UPPER.com/team": "x"}, "is not a valid key"),
        ({"a" * 64: "x"}, "is not a valid key"),
        ({"team\n": "x"}, "is not a valid key"),
        ({"team": "two words"}, "is not a valid value of the label"),
        ({"team": "x" * 64}, "is not a valid value of the label"),
        ({"team": "x\n"}, "is not a valid value of the label"),
        ({"team": "{{workflow.uid}}"}, "is not a valid value of the label"),
        ({"stoke.managed": "false"}, "set by stoke or Argo"),
        ({"workflows.argoproj.io/workflow": "x"}, "set by stoke or Argo"),
    ],
)
def test_other_labels_are_refused(labels: dict[str, str], why: str) -> None:
    with pytest.raises(RequestError, match=why) as refused:
        make_spec({"code": "1", "labels": labels})
    assert refused.value.field == "labels"


def test_annotations_take_any_text_up_to_a_size() -> None:
    assert make_spec({"code": "1", "annotations": {"example.com/why": "a b\n{}"}})
    with pytest.raises(RequestError, match="262,144 is the most"):
        make_spec({"code": "1", "annotations": {"why": "x" * 262_144}})
    with pytest.raises(RequestError, match="is not a valid key"):
        make_spec({"code": "1", "annotations": {"why not": "x"}})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"cpu": 1, "cpu_request": 1.5}, "cpu_request"),
        ({"memory": "1g", "memory_request": "2g"}, "memory_request"),
        ({"gpu": 0}, "gpu"),
        ({"gpu": "many"}, "gpu"),
    ],
)
def test_impossible_amounts_are_refused(fields: dict[str, object], field: str) -> None:
    with pytest.raises(RequestError) as refused:
        make_spec({"code": "1", **fields})
    assert refused.value.field == field
