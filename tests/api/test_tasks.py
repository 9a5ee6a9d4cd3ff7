"""Jobs submitted, listed, stopped and run again over HTTP."""

from __future__ import annotations

import json
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stoke.files.paths import state_dir
from stoke.history.database import History
from stoke.history.listing import Listing, ListingQuery
from tests.api.served import STOKE, Client, Process, make_token, problem, serving
from tests.lab import until

WAITS = "import time; print('began', flush=True); time.sleep(600)"


def test_an_empty_body_runs_the_default_code_of_the_earlier_service(client: Client) -> None:
    for body in (None, b"", b"{}", b'{"useCache": true}', b'{"dependencies": null}'):
        answer = client.post("/api/v1/tasks/submit", body)
        assert answer.status_code == 200, answer.text
        job = client.over(answer.json()["id"])
        assert job["state"] == "succeeded"
        assert client.log(job["id"]) == b"Processing task in Kind...\n"
        assert answer.headers["Location"] == f"/api/v1/tasks/{job['id']}"


def test_the_earlier_json_and_our_own(client: Client) -> None:
    earlier = {
        "pythonCode": "print('earlier')",
        "dependencies": None,
        "requirementsFile": None,
        "systemDependencies": None,
        "useCache": False,
    }
    job = client.run(earlier)
    assert client.log(job["id"]) == b"earlier\n"
    assert job["spec"]["use_cache"] is False
    own = {
        "code": "import os, sys; print(sys.argv[1:], os.environ['A'])",
        "args": ["x"],
        "env": {"A": "1"},
    }
    job = client.run(own, "?name=my%20job")
    assert client.log(job["id"]) == b"['x'] 1\n"
    assert job["name"] == "my job" and job["id"].startswith("my-job-")


def test_a_job_is_in_the_history_when_its_id_is_answered(client: Client) -> None:
    answer = client.post("/api/v1/tasks/submit", {"code": "1"})
    assert answer.status_code == 202
    with History(read_only=True) as history:
        assert history.get(answer.json()["id"]) is not None
        listing = Listing(history)
        listing.read(ListingQuery(), 0.0)
        assert listing.ids() == [answer.json()["id"]]


WRONG: list[tuple[Any, str]] = [
    ({"code": "1", "packages": ["six"]}, "packages"),
    ({"pythonCode": "1", "docker": True}, "docker"),
    ({"code": "1", "index": {"address": "https://a.example"}}, "index.address"),
    ({"code": "1", "memory": "a lot"}, "memory"),
    ({"code": "1", "dependencies": ["a b c"]}, "dependencies[0]"),
    ({"code": ""}, "code"),
    ({"pythonCode": 5}, "code"),
    ({"pythonCode": "1", "dependencies": ["six"]}, "dependencies"),
    ({"code": "1", "env": {"A=B": "x"}}, "env"),
    ({"code": "1", "cpu": "NaN"}, "cpu"),
]


@pytest.mark.parametrize(("body", "field"), WRONG, ids=[field for _, field in WRONG])
def test_a_wrong_field_is_named_and_nothing_is_submitted(
    client: Client, body: Any, field: str
) -> None:
    answer = client.post("/api/v1/tasks/submit", body)
    assert answer.status_code == 422, answer.text
    assert problem(answer)["field"] == field
    assert client.get("/api/v1/tasks").json()["total"] == 0


def test_wrong_queries_are_named(client: Client) -> None:
    for path, field in {
        "/api/v1/tasks?limits=5": "query.limits",
        "/api/v1/tasks?limit=0": "query.limit",
        "/api/v1/tasks?limit=5&limit=6": "query.limit",
        "/api/v1/tasks?offset=-1": "query.offset",
        "/api/v1/tasks?state=done": "query.state",
        "/api/v1/tasks?filter=%00": "query.filter",
    }.items():
        answer = client.get(path)
        assert (answer.status_code, problem(answer)["field"]) == (422, field)
    answer = client.post("/api/v1/tasks/submit?backend=dokcer", {})
    assert answer.status_code == 422 and "dokcer" in problem(answer)["detail"]


def test_an_unknown_backend_is_named_as_a_parameter(client: Client) -> None:
    job = client.run({"code": "1"})["id"]
    for path in ("submit", f"{job}/rerun"):
        answer = client.post(f"/api/v1/tasks/{path}?backend=none", b"")
        assert answer.status_code == 422 and problem(answer)["field"] == "query.backend"


def test_the_list_has_pages_and_filters(client: Client) -> None:
    ids = [client.submit({"code": f"print({n})"}, f"?name=job{n % 2}")["id"] for n in range(5)]
    first = client.get("/api/v1/tasks?limit=2").json()
    assert [job["id"] for job in first["tasks"]] == ids[:2:-1]
    assert (first["total"], first["next"]) == (5, 2)
    last = client.get("/api/v1/tasks?limit=2&offset=4").json()
    assert [job["id"] for job in last["tasks"]] == [ids[0]] and last["next"] is None
    named = client.get("/api/v1/tasks?filter=name:job1").json()
    assert {job["id"] for job in named["tasks"]} == {ids[1], ids[3]}
    for one in ids:
        client.over(one)
    assert client.get("/api/v1/tasks?state=succeeded").json()["total"] == 5
    assert client.get("/api/v1/tasks?state=failed").json()["total"] == 0


def test_the_commands_see_the_job_and_the_server_sees_theirs(client: Client) -> None:
    ours = client.run({"code": "print(1)"})["id"]
    listed = subprocess.run([STOKE, "jobs", "--json"], check=True, capture_output=True, text=True)
    assert [job["id"] for job in json.loads(listed.stdout)] == [ours]
    subprocess.run([STOKE, "run", "-q", "-c", "print(2)", "--name", "theirs"], check=True)
    (theirs, _) = client.get("/api/v1/tasks").json()["tasks"]
    assert (theirs["name"], client.log(theirs["id"])) == ("theirs", b"2\n")


def test_a_running_job_is_stopped(client: Client) -> None:
    job = client.submit({"code": WAITS})["id"]
    until(lambda: client.log(job) == b"began\n", "its output")
    answer = client.ask("DELETE", f"/api/v1/tasks/{job}?grace=0")
    assert answer.status_code == 202
    assert client.over(job)["state"] == "stopped"
    assert client.ask("DELETE", f"/api/v1/tasks/{job}").json()["state"] == "stopped"


def test_a_job_that_still_waits_for_its_engine_is_withdrawn(client: Client) -> None:
    """Also one that the engine is being given at that moment is stopped."""
    with ThreadPoolExecutor(10) as pool:
        ids = [job["id"] for job in pool.map(lambda _: client.submit({"code": WAITS}), range(30))]
        answers = list(
            pool.map(lambda one: client.ask("DELETE", f"/api/v1/tasks/{one}?grace=0"), ids)
        )
    assert {answer.status_code for answer in answers} == {202}
    assert {client.over(one)["state"] for one in ids} == {"stopped"}


def test_a_job_is_run_again(client: Client) -> None:
    first = client.run({"code": "print(7)"}, "?name=seven")
    answer = client.post(f"/api/v1/tasks/{first['id']}/rerun")
    assert answer.status_code == 202
    again = client.over(answer.json()["id"])
    assert again["id"] != first["id"] and again["name"] == "seven"
    assert client.log(again["id"]) == b"7\n"
    assert client.post(f"/api/v1/tasks/{first['id']}/rerun", {"code": "1"}).status_code == 422
    assert client.post("/api/v1/tasks/nothing/rerun").status_code == 404


def test_an_idempotency_key_submits_once(client: Client) -> None:
    key = {"Idempotency-Key": "order-17"}
    path = "/api/v1/tasks/submit"
    first = client.post(path, {"code": "print(1)"}, headers=key)
    again = client.post(path, {"code": "print(1)"}, headers=key)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    other = client.post(path, {"code": "print(2)"}, headers=key)
    assert other.status_code == 422 and "another request" in problem(other)["detail"]
    assert client.post(path, {}, headers={"Idempotency-Key": "x" * 256}).status_code == 422
    assert client.get("/api/v1/tasks").json()["total"] == 1
    theirs = Client(client.address, make_token("other"))
    assert theirs.submit({"code": "print(1)"}, headers=key)["id"] != first.json()["id"]


def test_requests_with_one_key_at_the_same_time_submit_once(client: Client) -> None:
    def submit(_: int) -> tuple[int, str | None]:
        answer = client.post(
            "/api/v1/tasks/submit", {"code": "1"}, headers={"Idempotency-Key": "same"}
        )
        return answer.status_code, answer.json().get("id")

    with ThreadPoolExecutor(16) as pool:
        answers = set(pool.map(submit, range(64)))
    assert {status for status, _ in answers} <= {202, 409}
    assert len({job for status, job in answers if status == 202}) == 1
    assert client.get("/api/v1/tasks").json()["total"] == 1


def test_keys_and_jobs_survive_the_death_of_the_server(own_home: Path) -> None:
    secret = make_token("ci")
    server = Process()
    job = Client(server.address, secret).submit(
        {"code": "print(1)"}, headers={"Idempotency-Key": "once"}
    )
    server.kill()
    server = Process()
    try:
        client = Client(server.address, secret)
        again = client.submit({"code": "print(1)"}, headers={"Idempotency-Key": "once"})
        assert again["id"] == job["id"]
        assert client.get("/api/v1/tasks").json()["total"] == 1
    finally:
        server.kill()


def test_every_accepted_job_is_in_the_history_after_a_kill(own_home: Path) -> None:
    secret = make_token("ci")
    server = Process()
    accepted: list[str] = []
    lock = threading.Lock()

    def submit_until_dead(_: int) -> None:
        client = Client(server.address, secret)
        while True:
            try:
                answer = client.post("/api/v1/tasks/submit", {"code": "1"})
            except OSError:
                return
            if answer.status_code == 202:
                with lock:
                    accepted.append(answer.json()["id"])

    with ThreadPoolExecutor(50) as pool:
        done = [pool.submit(submit_until_dead, number) for number in range(50)]
        until(lambda: len(accepted) >= 100, "100 accepted jobs")
        server.kill()
        for one in done:
            one.result()
    with History() as history:
        assert {job.id for job in history.those(accepted)} == set(accepted)
    server = Process()
    try:
        client = Client(server.address, secret)
        assert {client.over(job)["state"] for job in accepted} == {"succeeded"}
    finally:
        server.kill()


def test_a_server_that_is_stopped_delivers_what_it_has_accepted(own_home: Path) -> None:
    secret = make_token("ci")
    with serving() as address:
        client = Client(address, secret)
        ids = [client.submit({"code": "print(1)"})["id"] for _ in range(10)]
    with serving() as address:
        client = Client(address, secret)
        assert {client.over(job)["state"] for job in ids} == {"succeeded"}


def test_a_history_that_another_program_holds_refuses_and_loses_nothing(client: Client) -> None:
    client.submit({"code": "1"})
    with History() as other, ThreadPoolExecutor(4) as pool:
        other.query("BEGIN IMMEDIATE")
        pending = [
            pool.submit(client.post, "/api/v1/tasks/submit", {"code": "2"}) for _ in range(4)
        ]
        # Readers do not wait for the writer.
        assert client.get("/healthz").status_code == 200
        answers = [one.result() for one in pending]
        other.query("ROLLBACK")
    assert {answer.status_code for answer in answers} == {503}
    assert all("Retry-After" in answer.headers for answer in answers)
    assert client.submit({"code": "3"})["state"] == "queued"
    known = {job["id"] for job in client.get("/api/v1/tasks").json()["tasks"]}
    assert len(known) == 2
    assert {folder.name for folder in (state_dir() / "jobs").iterdir()} == known


def test_a_full_queue_refuses(own_home: Path) -> None:
    secret = make_token("ci")
    with serving(queue=2) as address:
        client = Client(address, secret)
        with ThreadPoolExecutor(20) as pool:
            answers = list(
                pool.map(lambda _: client.post("/api/v1/tasks/submit", {"code": "1"}), range(60))
            )
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused and all("Retry-After" in answer.headers for answer in refused)
        accepted = sum(answer.status_code == 202 for answer in answers)
        assert client.get("/api/v1/tasks").json()["total"] == accepted
