"""When operating systems end: security fixes for everybody stop on that day.

A site's own table, and what an image's endorser says, come before this one. Where a distribution
has longer support for everybody, such as Debian LTS, the day is that of the longer one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from mayfly.policy.model import EndOfLife, ImageFacts, Line
from mayfly.policy.people import matches

KNOWN = {
    "almalinux 8": "2029-03-01",
    "almalinux 9": "2032-05-31",
    "centos 5": "2017-03-31",
    "centos 6": "2020-11-30",
    "centos 7": "2024-06-30",
    "centos 8": "2021-12-31",
    "debian 7": "2018-05-31",
    "debian 8": "2020-06-30",
    "debian 9": "2022-06-30",
    "debian 10": "2024-06-30",
    "debian 11": "2026-08-31",
    "debian 12": "2028-06-30",
    "debian 13": "2030-06-30",
    "rocky 8": "2029-05-31",
    "rocky 9": "2032-05-31",
    "scientific linux 5": "2017-03-31",
    "scientific linux 6": "2020-11-30",
    "scientific linux 7": "2024-06-30",
    "ubuntu 14.04": "2019-04-25",
    "ubuntu 16.04": "2021-04-30",
    "ubuntu 18.04": "2023-05-31",
    "ubuntu 20.04": "2025-05-31",
}


def end_of(image: ImageFacts, table: tuple[EndOfLife, ...], line: Line) -> EndOfLife | None:
    """Give when an image ends, and where that is said; ``line`` where the site says nothing.

    Of several lines of the site's that speak of it, the longest pattern counts.
    """
    own = [each for each in table if _is_meant(each.pattern, image)]
    if own:
        return max(own, key=lambda each: len(each.pattern))
    for ends_on in _told(image):
        return EndOfLife(line=line, pattern=image.os or image.name, ends_on=ends_on)
    return None


def _told(image: ImageFacts) -> Iterator[date]:
    if image.end_of_life is not None:
        yield image.end_of_life
    words = image.os.lower().split()
    for name, day in KNOWN.items():
        # 7.9 is 7; 14.04 is itself.
        if words and (words == name.split() or _is_minor(words, name.split())):
            yield date.fromisoformat(day)


def _is_minor(words: list[str], known: list[str]) -> bool:
    return words[:-1] == known[:-1] and words[-1].startswith(f"{known[-1]}.")


def _is_meant(pattern: str, image: ImageFacts) -> bool:
    return matches(pattern, image.name) or matches(pattern.lower(), image.os.lower())
