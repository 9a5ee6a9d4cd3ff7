"""Results and caches over HTTP."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from stoke.results.store import results_folder
from tests.api.served import Client, make_token, problem

LEAVES = r"""
import os
top = os.environb[b"STOKE_RESULTS"]
os.mkdir(top + b"/out")
for name, data in {
    b"out/scores.csv": b"1,2", b"a b%2e.txt": b"x" * 300_000, b"\xff\xfe": b"raw",
    b"line\r\nSet-Cookie: a": b"y",
}.items():
    open(top + b"/" + name, "wb").write(data)
os.symlink("/etc/passwd", top + b"/link")
"""
FILES = {
    b"out/scores.csv": b"1,2",
    b"a b%2e.txt": b"x" * 300_000,
    b"\xff\xfe": b"raw",
    b"line\r\nSet-Cookie: a": b"y",
}


@pytest.fixture
def job(client: Client) -> str:
    job_id: str = client.run({"code": LEAVES})["id"]
    return job_id


def test_results_are_listed_and_read_byte_for_byte(client: Client, job: str) -> None:
    found = client.get(f"/api/v1/tasks/{job}/results").json()
    assert found["bytes"] == sum(map(len, FILES.values()))
    assert [one["path"] for one in found["refused"]] == ["link"]
    assert {os.fsencode(one["path"]) for one in found["files"]} == FILES.keys()
    for one in found["files"]:
        answer = client.get(one["href"])
        assert answer.status_code == 200, answer.text
        assert answer.content == FILES[os.fsencode(one["path"])]
        assert one["sha256"] == hashlib.sha256(answer.content).hexdigest()
        assert "Set-Cookie" not in answer.headers
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"].startswith("attachment; filename*=UTF-8''")


def test_the_archive_has_all_of_them(client: Client, job: str) -> None:
    answer = client.get(f"/api/v1/tasks/{job}/results/archive")
    with tarfile.open(fileobj=io.BytesIO(answer.content), errors="surrogateescape") as archive:
        found = {}
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None and member.isreg()
            found[os.fsencode(member.name)] = file.read()
    assert found == FILES


OUTSIDE = [
    "../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/history.sqlite",
    "/etc/passwd", "%2fetc%2fpasswd", "link", "out/../../log", "out", "", "out/scores.csv/",
    "scores.csv", "out%00/scores.csv", "out//scores.csv", "./out/scores.csv",
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_only_a_name_of_the_list_is_read(client: Client, job: str, path: str) -> None:
    head = client.head("GET", f"/api/v1/tasks/{job}/results/files/{path}")
    answer = client.raw(head + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 404 "), answer
    assert b"root:" not in answer


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "..%2f..", "%2e%2e%2fjobs", "a%00b", "%ff", "damaged-row-1", "*", "'"]
)
def test_tricks_in_ids_find_nothing(client: Client, job: str, name: str) -> None:
    for rest in ("", "/logs", "/results", "/results/archive", "/results/files/log"):
        answer = client.raw(client.head("GET", f"/api/v1/tasks/{name}{rest}") + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 404 "), answer


def test_results_of_a_running_job_are_not_there_yet(client: Client) -> None:
    job = client.submit({"code": "import time; time.sleep(600)"})["id"]
    answer = client.get(f"/api/v1/tasks/{job}/results")
    assert answer.status_code == 409
    client.ask("DELETE", f"/api/v1/tasks/{job}?grace=0")
    client.over(job)
    assert client.get(f"/api/v1/tasks/{job}/results").json()["files"] == []


def test_results_that_were_removed_say_so(client: Client, job: str) -> None:
    assert client.get(f"/api/v1/tasks/{job}/results").json()["bytes"] > 0
    (results_folder(job) / "out/scores.csv").unlink()
    assert client.get(f"/api/v1/tasks/{job}/results/files/out/scores.csv").status_code == 404


# --- caches ---------------------------------------------------------------------------------------


def test_caches_are_listed_pruned_and_cleared(client: Client) -> None:
    from stoke.history.database import History
    from stoke.jobs.rerun import spec_of

    warmed = client.post("/api/v1/caches/warm", {"dependencies": ["nothing-of-this-name-1"]})
    assert warmed.status_code == 202, warmed.text
    job = client.over(warmed.json()["id"])
    assert job["name"] == "warm"
    with History() as history:
        found = history.get(job["id"])
        assert found is not None
        assert spec_of(found, history).dependencies == ("nothing-of-this-name-1",)
    # The package does not exist; its cache does.
    (volume,) = client.get("/api/v1/caches?backend=local").json()["caches"]
    assert (volume["backend"], volume["scope"], volume["kind"]) == ("local", "default", "python")
    pruned = client.post("/api/v1/caches/prune?backend=local", {"unused": "1h", "dry_run": True})
    assert pruned.status_code == 200 and pruned.json()["dry_run"] is True, pruned.text
    assert client.post("/api/v1/caches/prune?backend=local", {}).status_code == 422
    cleared = client.post("/api/v1/caches/clear?backend=local", {"scope": "default"})
    assert cleared.status_code == 200, cleared.text
    assert "error" not in cleared.json()["caches"][0]
    everywhere = client.get("/api/v1/caches").json()
    assert {one["backend"] for one in everywhere["unanswered"]} <= {"docker", "argo"}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("clear", {}, "scope"),
        ("clear", {"scope": "default", "force": True}, "force"),
        ("prune", {"unused": "soon"}, "unused"),
        ("prune", {"max_size": 5}, "max_size"),
        ("prune", {"kind": "nix"}, "kind"),
        ("warm", {"code": "print(1)"}, "code"),
        ("warm", {}, "dependencies"),
        ("warm", {"top": 0}, "top"),
        ("warm", {"requirements": "-r /etc/passwd"}, "requirements line 1"),
    ],
)
def test_wrong_fields_of_cache_operations(client: Client, path: str, body: Any, field: str) -> None:
    answer = client.post(f"/api/v1/caches/{path}?backend=local", body)
    assert answer.status_code == 422, answer.text
    assert problem(answer)["field"] == field


def test_a_token_without_the_right_changes_no_cache(client: Client, own_home: Path) -> None:
    other = Client(client.address, make_token("ci", "submit"))
    for path in ("prune", "clear"):
        assert other.post(f"/api/v1/caches/{path}", {"scope": "default"}).status_code == 403
