"""What the pages on time and the outside say can be run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from yaoki import Saga

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("page", ["reference/sagas-time.md", "how-to/let-the-outside-answer.md"])
def test_the_code_of_a_page_defines_what_it_says(page: str):
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL):
        exec(block, names)
    sagas = [value for value in names.values() if isinstance(value, Saga)]
    assert sagas
    for saga in sagas:
        assert len(saga.graph)
