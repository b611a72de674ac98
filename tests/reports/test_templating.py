"""Templates of pages: values are escaped, and none may be forgotten."""

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from reports.templating import page_template


def test_values_are_escaped_and_none_may_be_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.html").write_text("{% if name %}\n<p title='{{ name }}'>{{ name }}</p>\n{% endif %}\n")
    monkeypatch.setattr("reports.templating.TEMPLATES", tmp_path)
    text = page_template("page.html").render(name="<b>'\"&")
    assert text == "<p title='&lt;b&gt;&#39;&#34;&amp;'>&lt;b&gt;&#39;&#34;&amp;</p>\n"
    with pytest.raises(UndefinedError, match="'name' is undefined"):
        page_template("page.html").render()
