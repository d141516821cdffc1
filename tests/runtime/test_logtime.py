"""Go's time formats, as Go prints them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from llmswap.runtime.logtime import stamper

WHEN = datetime(2026, 3, 7, 5, 4, 9, 120300, tzinfo=timezone(timedelta(hours=1), "CET"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ansic", "Sat Mar  7 05:04:09 2026"),
        ("unixdate", "Sat Mar  7 05:04:09 CET 2026"),
        ("rubydate", "Sat Mar 07 05:04:09 +0100 2026"),
        ("rfc822", "07 Mar 26 05:04 CET"),
        ("rfc822z", "07 Mar 26 05:04 +0100"),
        ("rfc850", "Saturday, 07-Mar-26 05:04:09 CET"),
        ("rfc1123", "Sat, 07 Mar 2026 05:04:09 CET"),
        ("rfc1123z", "Sat, 07 Mar 2026 05:04:09 +0100"),
        ("RFC3339", "2026-03-07T05:04:09+01:00"),
        ("rfc3339nano", "2026-03-07T05:04:09.1203+01:00"),
        ("Kitchen", "5:04AM"),
        ("stamp", "Mar  7 05:04:09"),
        ("stampmilli", "Mar  7 05:04:09.120"),
        ("stampmicro", "Mar  7 05:04:09.120300"),
        ("stampnano", "Mar  7 05:04:09.120300000"),
    ],
)
def test_each_format_prints_as_go_does(name, expected):
    stamp = stamper(name)
    assert stamp is not None
    assert stamp(WHEN) == expected


def test_utc_is_z_and_a_whole_second_has_no_fraction():
    stamp = stamper("rfc3339nano")
    assert stamp is not None
    assert stamp(WHEN.astimezone(UTC).replace(microsecond=0)) == "2026-03-07T04:04:09Z"


@pytest.mark.parametrize("name", ["", "nonsense"])
def test_no_or_unknown_name_means_no_time(name):
    assert stamper(name) is None
