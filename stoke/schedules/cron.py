"""Cron expressions: five fields that say when a schedule runs, as crontab(5) describes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_YEARS = 40
"""How far to look for a run: 29 February falls on each day of the week within 40 years."""
LONGEST = 500
"""Characters of an expression."""


@dataclass(frozen=True)
class _Field:
    label: str
    first: int
    last: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, ("", *_MONTHS)),
    _Field("day of week", 0, 7, _WEEKDAYS),
)
_PART = re.compile(r"(?:(\*)|([a-z]+|\d{1,3})(?:-([a-z]+|\d{1,3}))?)(?:/(\d{1,3}))?", re.ASCII)


@dataclass(frozen=True)
class CronTimes:
    """The times of a cron expression. Days of the week count from Sunday, 0.

    `line` has the five fields in digits, for a crontab. With `either_day`, a day matches if one of
    day of month and day of week does, as in cron if neither field begins with `*`.
    """

    line: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either_day: bool

    def next_after(self, now: datetime) -> datetime | None:
        """Return the next time of the clock on the wall after `now`, without its timezone.

        None if there is none in the next 40 years.
        """
        now = now.replace(second=0, microsecond=0, tzinfo=None)
        day = now.replace(hour=0, minute=0)
        for number in range(_YEARS * 366):
            one = day + timedelta(days=number)
            if not self._has_day(one):
                continue
            for hour in self.hours:
                for minute in self.minutes:
                    time = one.replace(hour=hour, minute=minute)
                    if time > now:
                        return time
        return None

    def _has_day(self, day: datetime) -> bool:
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (of_month or of_week) if self.either_day else (of_month and of_week)

    def unambiguous_line(self) -> str | None:
        """Return the five fields for a program that has its own rule for two fields of days: `*` only
        for all of them, and if neither is `*`, one of them is enough.

        None if both fields have to match, which no such line means.
        """
        minute, hour, _, month, _ = self.line.split()
        days = ",".join(map(str, self.days))
        weekdays = ",".join(map(str, self.weekdays))
        if not self.either_day:
            every_day, every_weekday = len(self.days) == 31, len(self.weekdays) == 7
            if not (every_day or every_weekday):
                return None
            days = "*" if every_day else days
            weekdays = "*" if every_weekday else weekdays
        return f"{minute} {hour} {days} {month} {weekdays}"

    def calendars(self, timezone: str | None) -> list[str]:
        """Return the times as calendar events of systemd.time(7), which together have all of them."""
        every_day, every_weekday = tuple(range(1, 32)), tuple(range(7))
        choices = [(self.days, self.weekdays)]
        if self.either_day:
            choices = [(self.days, every_weekday), (every_day, self.weekdays)]
        clock = f"{_list(self.hours, 24)}:{_list(self.minutes, 60)}:00"
        zone = f" {timezone}" if timezone else ""
        return [
            f"{_weekday_list(weekdays)}*-{_list(self.months, 12)}-{_list(days, 31)} {clock}{zone}"
            for days, weekdays in choices
        ]


def _list(numbers: tuple[int, ...], all_of_them: int) -> str:
    return "*" if len(numbers) == all_of_them else ",".join(map(str, numbers))


def _weekday_list(weekdays: tuple[int, ...]) -> str:
    if len(weekdays) == 7:
        return ""
    return ",".join(_WEEKDAYS[number].capitalize() for number in weekdays) + " "


def parse_cron(text: str) -> CronTimes:
    """Return the times of an expression. `ValueError` names the field that is wrong, and its value."""
    if len(text) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} characters")
    if text.strip().lower() == "@reboot":
        raise ValueError("'@reboot' is no time; write five fields, such as '0 3 * * *'")
    words = _NICKNAMES.get(text.strip().lower(), text).lower().split()
    if len(words) != 5:
        raise ValueError(
            f"{text[:80]!r} has {len(words)} field{'' if len(words) == 1 else 's'} of 5; write minute, "
            "hour, day of month, month and day of week, such as '0 3 * * *'"
        )
    parsed = [_parse_field(field, word) for field, word in zip(_FIELDS, words, strict=True)]
    minutes, hours, days, months, weekdays = (numbers for _, numbers in parsed)
    times = CronTimes(
        " ".join(line for line, _ in parsed),
        minutes,
        hours,
        days,
        months,
        tuple(sorted({number % 7 for number in weekdays})),
        either_day=not (words[2].startswith("*") or words[4].startswith("*")),
    )
    if times.next_after(datetime(2000, 1, 1)) is None:
        raise ValueError(
            f"day of month: {words[2][:40]!r} never comes in the months {words[3][:40]!r}"
        )
    return times


def _parse_field(field: _Field, word: str) -> tuple[str, tuple[int, ...]]:
    """Return a field in digits, and its numbers in order."""
    lines: list[str] = []
    numbers: set[int] = set()
    for part in word.split(","):
        line, found = _parse_part(field, part)
        lines.append(line)
        numbers.update(found)
    return ",".join(lines), tuple(sorted(numbers))


def _parse_part(field: _Field, part: str) -> tuple[str, range]:
    found = _PART.fullmatch(part)
    if found is None:
        raise ValueError(
            f"{field.label}: {part[:40]!r} is not *, a number, a range such as "
            f"{field.first}-{field.last}, or one of these with a step: */2"
        )
    star, low, high, step = found.groups()
    every = 1 if step is None else int(step)
    if every == 0:
        raise ValueError(f"{field.label}: {part!r} has the step 0")
    behind = "" if step is None else f"/{every}"
    if star:
        last = 6 if field.names == _WEEKDAYS else field.last
        return f"*{behind}", range(field.first, last + 1, every)
    first = _number(field, low)
    if high is None:
        if step is not None:
            raise ValueError(
                f"{field.label}: {part!r} has a step and no range; write {first}-{field.last}{behind}"
            )
        return str(first), range(first, first + 1)
    last = _number(field, high)
    if last == 0 and high == "sun":
        last = 7
    if last < first:
        raise ValueError(f"{field.label}: {part!r} ends before it begins")
    return f"{first}-{last}{behind}", range(first, last + 1, every)


def _number(field: _Field, text: str) -> int:
    if text in field.names:
        return field.names.index(text)
    if not text.isdecimal():
        names = (
            f", or {next(filter(None, field.names))} to {field.names[-1]}" if field.names else ""
        )
        raise ValueError(
            f"{field.label}: {text[:40]!r} is no number from {field.first} to {field.last}{names}"
        )
    number = int(text)
    if not field.first <= number <= field.last:
        raise ValueError(f"{field.label}: {number} is not from {field.first} to {field.last}")
    return number


def check_timezone(name: str) -> str:
    """Return the name of a timezone of the tz database. `ValueError` for any other."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*", name) or len(name) > 60:
        raise ValueError(f"{name[:80]!r} is not a timezone; write one such as Europe/Berlin or UTC")
    try:
        ZoneInfo(name)
    except (OSError, ValueError, LookupError):  # ZoneInfoNotFoundError is a LookupError.
        raise ValueError(
            f"{name!r} is not a timezone that this machine knows; write one such as Europe/Berlin"
        ) from None
    return name


def next_run(times: CronTimes, timezone: str | None, now: datetime) -> float | None:
    """Return when the next run is due, in epoch seconds; `now` is in UTC.

    Without a timezone, that of this machine counts.
    """
    if timezone is None:
        found = times.next_after(now.astimezone())
        return None if found is None else found.astimezone().timestamp()
    zone = ZoneInfo(timezone)
    found = times.next_after(now.astimezone(zone))
    return None if found is None else found.replace(tzinfo=zone).timestamp()
