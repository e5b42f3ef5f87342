"""Test the escaping of Markdown as GitHub renders it."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from bench.report.text.markdown import escaped

RENDER = MarkdownIt("commonmark")


@pytest.mark.parametrize(
    "name",
    [
        "# evil", "> quote", "1. one", "2) two", "- dash", "+ plus", "=", "*bold*", "_under_", "a_b_c", "__init__",
        "`code`", "[link](x)", "<b>", "&lt;b&gt;", "a\\b", "--- a", "~~~",
    ],
)  # fmt: skip
def test_an_escaped_name_renders_as_a_paragraph_with_exactly_that_text(name: str) -> None:
    tokens = RENDER.parse(escaped(name))
    assert [each.type for each in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert {each.type for each in tokens[1].children or []} == {"text"} or all(
        each.type in ("text", "text_special") for each in tokens[1].children or []
    )
    assert "".join(each.content for each in tokens[1].children or []) == name


def test_figures_and_keys_stay_readable() -> None:
    assert escaped("workload.batch_size=2 is 57.76 ms, 3.5 %") == "workload.batch_size=2 is 57.76 ms, 3.5 %"
