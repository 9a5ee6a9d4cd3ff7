"""A tar stream of results: read in any pieces, and refused where it is damaged."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.common.tar_entries import MAX_HEADER, DamagedTarError, read_entries
from stoke.backend.capabilities import EntryKind


def archive(names: list[tuple[bytes, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for name, data in names:
            info = tarfile.TarInfo("top/" + name.decode("utf-8", "surrogateescape"))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


NAME = st.binary(min_size=1, max_size=300).map(
    lambda name: name.translate(bytes.maketrans(b"/\0", b"__"))
)


@given(
    st.lists(st.tuples(NAME, st.binary(max_size=2000)), max_size=6),
    st.integers(1, 3000),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_names_and_contents_survive_any_cut(
    names: list[tuple[bytes, bytes]], size: int, form: int
) -> None:
    read = [
        (one.path, b"".join(one.read())) for one in read_entries(cut(archive(names, form), size))
    ]
    assert read == names


def test_contents_that_are_not_read_are_skipped() -> None:
    data = archive([(b"a", b"x" * 5000), (b"b", b"y")])
    assert [(one.path, one.size) for one in read_entries(cut(data, 700))] == [
        (b"a", 5000),
        (b"b", 1),
    ]


def test_links_devices_and_folders_are_told_apart() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in (
            ("top", tarfile.DIRTYPE), ("top/d", tarfile.DIRTYPE), ("top/l", tarfile.SYMTYPE),
            ("top/p", tarfile.FIFOTYPE), ("top/c", tarfile.CHRTYPE), ("top/h", tarfile.LNKTYPE),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "top/x"
            tar.addfile(info)
    found = [(one.path, one.kind, one.target) for one in read_entries([out.getvalue()])]
    assert found == [
        (b"d", EntryKind.FOLDER, b"top/x"),
        (b"l", EntryKind.LINK, b"top/x"),
        (b"p", EntryKind.OTHER, b"top/x"),
        (b"c", EntryKind.OTHER, b"top/x"),
        (b"h", EntryKind.HARD_LINK, b"x"),
    ]


def test_a_top_that_is_a_link_or_a_file_is_an_entry_of_its_own() -> None:
    info = tarfile.TarInfo("results")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc"
    (one,) = read_entries([info.tobuf() + bytes(1024)])
    assert (one.path, one.kind) == (b"", EntryKind.LINK)


@given(st.binary(max_size=3000))
def test_noise_is_damage(data: bytes) -> None:
    if data[:512] == bytes(512):
        return
    with pytest.raises(DamagedTarError):
        list(read_entries([data]))


@given(st.data())
def test_a_stream_that_ends_early_is_damage(data: st.DataObject) -> None:
    whole = archive([(b"a", b"x" * 600), (b"\xff" * 120, b"y")])
    end = whole.rstrip(b"\0")
    cut_at = data.draw(st.integers(0, len(end)))
    with pytest.raises(DamagedTarError):
        list(read_entries([whole[:cut_at]]))


def test_an_endless_extended_header_is_refused_before_it_is_read() -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, MAX_HEADER + 1

    def pieces() -> Iterator[bytes]:
        yield info.tobuf(tarfile.USTAR_FORMAT)
        pytest.fail("the header was read")

    with pytest.raises(DamagedTarError, match="too long"):
        list(read_entries(pieces()))
