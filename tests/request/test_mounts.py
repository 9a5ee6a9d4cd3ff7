"""The text of a mount: SRC:/path[:ro|:rw] or claim:NAME:/path[:ro|:rw]."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.errors import RequestError
from stoke.request.mounts import Mount, parse_mount, with_whole_source
from stoke.request.sources import request_from_options
from stoke.request.values import Mounts


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a b/c:/data", Mount("/a b/c", "/data", False, False)),
        ("/a:/data/x.csv:ro", Mount("/a", "/data/x.csv", False, False)),
        ("/a:/data/:rw", Mount("/a", "/data", True, False)),
        ("claim:big-data.1:/data:rw", Mount("big-data.1", "/data", True, True)),
    ],
)
def test_a_mount_is_read(text: str, mount: Mount) -> None:
    assert parse_mount(text) == mount


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/a", "names no source and path"),
        (":/data", "names no source and path"),
        ("", "names no source and path"),
        ("/a:data", "no whole path in the job"),
        ("/a:/data:z", "'z' is no mode"),
        ("/a:/data:ro:rw", "'ro' is no mode"),
        ("/a:b:/data", "has a colon"),
        ("claim:A_b:/data", "is not the name of a claim"),
        ("claim::/data", "is not the name of a claim"),
        ("claim:a:b:/data", "is not the name of a claim"),
        ("a:/data", "is relative"),
        ("/a:/", "would hide the whole system"),
        ("/a:/data/../x", "has . or .. in it"),
        ("/a:/./data", "has . or .. in it"),
        ("/a://data", "is not a path for a mount"),
        ("/a:/{{x}}", "is not a path for a mount"),
        ("/a:/d\nx", "is not a path for a mount"),
        ("/a:/var", "jobs need /var/run"),
        ("/a" * 3000 + ":/data", "is longer than"),
    ],
)
def test_what_is_no_mount_is_refused_with_its_field(text: str, why: str) -> None:
    with pytest.raises(RequestError, match=why) as caught:
        request_from_options(code="1", mounts=[text])
    assert caught.value.field == "mounts"


@pytest.mark.parametrize(
    "target", ["/cache", "/nix/store", "/stoke", "/proc/1", "/sys", "/dev/shm"]
)
def test_paths_that_jobs_need_are_refused(target: str) -> None:
    with pytest.raises(RequestError, match=f"'{target}' cannot be mounted over"):
        request_from_options(code="1", mounts=[f"/a:{target}"])


@pytest.mark.parametrize("second", ["/data", "/data/", "/data/x"])
def test_two_mounts_have_apart_paths(second: str) -> None:
    for mounts in (["/a:/data", f"/b:{second}"], [f"/b:{second}", "/a:/data"]):
        with pytest.raises(RequestError, match="the same path, or one is in the other"):
            request_from_options(code="1", mounts=mounts)
    assert request_from_options(code="1", mounts=["/a:/data", "/b:/data2"]).mounts


def test_a_relative_source_becomes_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/user")
    typed = ["./a:/a", ".:/b:rw", "../x:/c", "~/d:/d", "/e:/e", "claim:f:/f"]
    whole = Mounts().from_options("mounts", typed)
    assert whole == [
        f"{tmp_path}/a:/a", f"{tmp_path}:/b:rw", f"{tmp_path}/../x:/c", "/home/user/d:/d", "/e:/e",
        "claim:f:/f",
    ]  # fmt: skip
    assert Mounts().from_text("mounts", "\n".join([*typed, "", " "])) == whole
    with pytest.raises(RequestError, match=r"write \./data for one in this folder") as caught:
        Mounts().from_options("mounts", ["data:/data"])
    # The advice, followed.
    advice = caught.value.why.partition("write ")[2].split()[0]
    assert Mounts().from_options("mounts", [f"{advice}:/data"]) == [f"{tmp_path}/data:/data"]


@given(st.text())
def test_any_text_is_a_checked_mount_or_refused(text: str) -> None:
    try:
        mount = parse_mount(text)
    except ValueError:
        return
    assert mount.target.startswith("/") and ":" not in mount.source + mount.target
    assert ".." not in mount.target.split("/")


@given(st.text())
def test_a_whole_source_stays(text: str) -> None:
    try:
        once = with_whole_source(text, Path("/folder"))
    except ValueError:
        return
    assert with_whole_source(once, Path("/other")) == once
