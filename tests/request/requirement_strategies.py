"""Requirements that hypothesis makes up."""

from __future__ import annotations

import re

from hypothesis import strategies as st

NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?", fullmatch=True).filter(
    lambda name: (
        name.lower() not in ("and", "or", "in", "not")
        and not re.search(r"\.(whl|zip|tar|t[bglx]z)|\.tar\.", name, re.IGNORECASE)
    )
)
BLANK = st.sampled_from(["", " ", "\t", "  "])
VERSION = st.sampled_from(["1", "2.0", "1.2.3", "3.9.1rc1", "1.0.post1", "2!1.0", "0.1.dev3"])
OPERATOR = st.sampled_from(["==", "!=", ">=", "<=", "<", ">", "~="])


@st.composite
def bounds(draw: st.DrawFn) -> str:
    clauses = [
        draw(OPERATOR) + draw(BLANK) + draw(VERSION).replace("1", "1.0", 1)
        for _ in range(draw(st.integers(1, 3)))
    ]
    comma = draw(BLANK) + "," + draw(BLANK)
    joined = comma.join(clauses)
    return f"({joined})" if draw(st.booleans()) else joined


@st.composite
def conditions(draw: st.DrawFn) -> str:
    quote = draw(st.sampled_from("'\""))
    value = quote + draw(st.sampled_from(["3.9", "nt", "x, y", "a b", "or c"])) + quote
    variable = draw(st.sampled_from(["python_version", "os_name", "extra", "sys_platform"]))
    operator = draw(st.sampled_from([" == ", "==", " < ", " in ", " not in "]))
    return variable + operator + value


MARKERS = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map("".join),
        inner.map(lambda marker: f"({marker})"),
    ),
    max_leaves=4,
)
ADDRESSES = st.sampled_from(
    [
        "https://packages.example.org/p,with,commas/a-1.0.tar.gz#sha256=00&x=1,2",
        "https://packages.example.org:8443/a.whl?x=;y",
        "git+https://code.example.org/r.git@v1.0",
        "git+ssh://git@code.example.org/r.git",
    ]
)


@st.composite
def requirements(draw: st.DrawFn, addresses: bool = True) -> str:
    text = draw(NAMES)
    if draw(st.booleans()):
        text += draw(BLANK) + "[" + draw(st.sampled_from(["x", "x,y", "x , y"])) + "]"
    if addresses and draw(st.integers(0, 3)) == 0:
        text += " @ " + draw(ADDRESSES)
        if draw(st.booleans()):
            text += " ;" + draw(BLANK) + draw(MARKERS)
        return text
    if draw(st.booleans()):
        text += draw(BLANK) + draw(bounds())
    if draw(st.booleans()):
        text += draw(BLANK) + ";" + draw(BLANK) + draw(MARKERS)
    return text


STAYS = "does not travel to where the job runs"


PIECES = st.lists(
    st.sampled_from(
        [
            *"aB1_-.[],<>=!~;@ \t\n'\"*+()",
            *("==", ">=", "~=", "1.0", "a[b]", " and ", "'3'", "python_version", ".whl", "file:"),
            *("; python_version < '3'", "https://h/x"),
        ]
    ),
    max_size=8,
).map("".join)
