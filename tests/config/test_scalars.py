import math

import pytest

from llmswap.config.scalars import Date, go_format, resolve


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("NULL", None),
        ("nUll", "nUll"),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("off", "off"),
        ("y", "y"),
        ("12", 12),
        ("-12", -12),
        ("+12", 12),
        ("1_000", 1000),
        ("0", 0),
        ("0123", 83),
        ("0o17", 15),
        ("0xfF", 255),
        ("-0b11", -3),
        ("08", 8.0),
        ("1e3", 1000.0),
        ("1.10", 1.1),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.5e-2", -0.005),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("1e400", "1e400"),
        ("9223372036854775808", 9223372036854775808),
        ("18446744073709551616", 1.8446744073709552e19),
        ("0x1ffffffffffffffff", "0x1ffffffffffffffff"),
        ("12:30:45", "12:30:45"),
        ("1:30", "1:30"),
        ("=", "="),
        ("-", "-"),
        ("--port", "--port"),
        (".", "."),
        ("1.2.3", "1.2.3"),
        ("١٢", "١٢"),
        ("0x", "0x"),
    ],
)
def test_plain_scalars_are_yaml_1_2_with_gos_numbers(text, value):
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number():
    assert math.isnan(resolve(".NaN"))


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2024-01-02", "2024-01-02T00:00:00Z"),
        ("2024-1-2", "2024-01-02T00:00:00Z"),
        ("2024-01-02T03:04:05.600Z", "2024-01-02T03:04:05.6Z"),
        ("2024-01-02t3:4:5+02:00", "2024-01-02T03:04:05+02:00"),
        ("2024-01-02 03:04:05", "2024-01-02T03:04:05Z"),
    ],
)
def test_dates_become_rfc_3339(text, date):
    found = resolve(text)
    assert isinstance(found, Date)
    assert found == date


@pytest.mark.parametrize(
    "text", ["2024-13-01", "2024-01-02T03:04:05", "2024-01-02 03:04:05Z", "2024-01-02x", "2024-02-30"]
)
def test_what_only_looks_like_a_date_is_a_string(text):
    assert type(resolve(text)) is str


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (16, "16"),
        (1.0, "1"),
        (0.7, "0.7"),
        (-0.0, "-0"),
        (100000.0, "100000"),
        (999999.0, "999999"),
        (123456.789, "123456.789"),
        (0.0001, "0.0001"),
        (1e6, "1e+06"),
        (1234567.0, "1.234567e+06"),
        (123456789.0, "1.23456789e+08"),
        (1e-5, "1e-05"),
        (1.5e10, "1.5e+10"),
        (1e10, "1e+10"),
        (-2.5e-7, "-2.5e-07"),
        (1e100, "1e+100"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_numbers_are_printed_as_go_prints_them(value, text):
    assert go_format(value) == text
