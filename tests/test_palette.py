"""The colours of settings."""

from __future__ import annotations

import re

from bench.results.palette import COLOURS, colour, positions_of


def luminance(text: str) -> float:
    """Relative luminance after WCAG 2.1."""
    parts = [int(text[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_first_colours_contrast_with_light_and_dark_pages() -> None:
    for each in COLOURS:
        assert contrast(each, "#ffffff") >= 3, each
        assert contrast(each, "#14171c") >= 3, each


def test_no_two_of_two_hundred_settings_share_a_colour() -> None:
    drawn = [colour(position) for position in range(200)]
    assert len(set(drawn)) == 200
    assert all(re.fullmatch("#[0-9a-f]{6}", each) for each in drawn)


def test_a_setting_keeps_its_colour() -> None:
    assert [colour(position) for position in range(12)] == list(COLOURS)
    assert colour(40) == colour(40)


def test_a_setting_without_a_record_keeps_its_colour_reserved() -> None:
    assert positions_of(["a", "c"], ["a", "b", "c"]) == [0, 2]
    assert positions_of(["x", "a", "a"], ["a", "b"]) == [2, 0, 3]
