"""Cron expressions: what is refused, when they run, and systemd's view of the same times."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.schedules.cron import check_timezone, next_run, parse_cron

NOW = datetime(2026, 12, 1, 0, 30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 3 * * *", "2026-12-01 03:00"),
        ("30 0 * * *", "2026-12-02 00:30"),
        ("*/20 * * * *", "2026-12-01 00:40"),
        ("5-59/15 4 * * *", "2026-12-01 04:05"),
        ("0 9 * * mon-fri", "2026-12-01 09:00"),
        ("0 9 * * sat,sun", "2026-12-05 09:00"),
        ("0 9 * * 7", "2026-12-06 09:00"),
        ("0 9 * * fri-sun", "2026-12-04 09:00"),
        ("0 0 1 JAN *", "2027-01-01 00:00"),
        ("0 0 29 2 *", "2028-02-29 00:00"),
        # With both days given, one of them is enough, unless one begins with a star.
        ("0 0 13 * 5", "2026-12-04 00:00"),
        ("0 0 */13 * 5", "2027-01-01 00:00"),
        ("@hourly", "2026-12-01 01:00"),
        ("@weekly", "2026-12-06 00:00"),
        ("@yearly", "2027-01-01 00:00"),
    ],
)
def test_the_next_time(text: str, expected: str) -> None:
    found = parse_cron(text).next_after(NOW)
    assert found is not None and f"{found:%Y-%m-%d %H:%M}" == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("61 * * * *", "minute: 61 is not from 0 to 59"),
        ("* 24 * * *", "hour: 24 is not from 0 to 23"),
        ("* * 0 * *", "day of month: 0 is not from 1 to 31"),
        ("* * * 13 *", "month: 13 is not from 1 to 12"),
        ("* * * * 8", "day of week: 8 is not from 0 to 7"),
        ("* * * mai *", "month: 'mai' is no number from 1 to 12, or jan to dec"),
        ("* * * * mon-", "day of week: 'mon-' is not "),
        ("a * * * *", "minute: 'a' is no number"),
        ("5/15 * * * *", "write 5-59/15"),
        ("*/0 * * * *", "minute: '*/0' has the step 0"),
        ("9-5 * * * *", "minute: '9-5' ends before it begins"),
        ("1,,2 * * * *", "minute: '' is not"),
        ("0 0 30 2 *", "day of month: '30' never comes in the months '2'"),
        ("* * * *", "has 4 fields of 5"),
        ("* * * * * root", "has 6 fields of 5"),
        ("", "has 0 fields of 5"),
        ("@reboot", "is no time"),
        ("٣ * * * *", "minute: '٣' is not"),
        ("0 3 * * *;ls", "day of week: '*;ls' is not"),
        ("1," * 300 + "1 * * * *", "longer than 500"),
    ],
)
def test_a_wrong_expression_names_field_and_value(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_cron(text)


def test_a_line_holds_digits_only() -> None:
    assert parse_cron("*/5  MON-fri".replace("MON-fri", "1-3 * jan-mar Mon-fri")).line == (
        "*/5 1-3 * 1-3 1-5"
    )


@given(st.text(alphabet="0123456789*/,-@ monfrijan;%$`'\"\n", max_size=40))
def test_any_text_is_refused_or_becomes_digits(text: str) -> None:
    try:
        times = parse_cron(text)
    except ValueError:
        return
    assert re.fullmatch(r"[0-9*/,-]+( [0-9*/,-]+){4}", times.line)
    again = parse_cron(times.line)
    assert again == times


def test_a_timezone_moves_the_run() -> None:
    times, now = parse_cron("0 3 * * *"), datetime(2026, 12, 1, tzinfo=UTC)
    assert next_run(times, "Europe/Berlin", now) == datetime(2026, 12, 1, 2, tzinfo=UTC).timestamp()
    assert next_run(times, "UTC", now) == datetime(2026, 12, 1, 3, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("name", ["Nowhere/City", "../../etc/passwd", "", "UTC\n", "A" * 70])
def test_a_wrong_timezone(name: str) -> None:
    with pytest.raises(ValueError, match="is not a timezone"):
        check_timezone(name)


FIELDS = st.tuples(
    st.sampled_from(["0", "*/7", "3,50", "10-20/5"]),
    st.sampled_from(["0", "*", "3,22", "9-17/4"]),
    st.sampled_from(["*", "*/9", "1", "13,31"]),
    st.sampled_from(["*", "2", "1-12/3", "4,11"]),
    st.sampled_from(["*", "0", "1-5", "fri-sun", "*/2"]),
)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
@given(FIELDS)
def test_systemd_runs_at_the_same_times(fields: tuple[str, ...]) -> None:
    times = parse_cron(" ".join(fields))
    base = "2026-12-01 00:30:00 UTC"
    shown = [
        subprocess.run(
            ["systemd-analyze", "calendar", f"--base-time={base}", event],
            capture_output=True,
            check=True,
            text=True,
            env={"TZ": "UTC", "LC_ALL": "C"},
        ).stdout
        for event in times.calendars("UTC")
    ]
    found = [re.search(r"Next elapse: \w+ ([0-9: -]+) UTC", one) for one in shown]
    expected = times.next_after(NOW)
    assert expected is not None
    assert min(one[1] for one in found if one) == f"{expected:%Y-%m-%d %H:%M:%S}"
