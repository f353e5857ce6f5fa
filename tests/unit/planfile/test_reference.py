"""What docs/reference/plan.md shows and says is so."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from drctl.domain.plan import DisasterClass
from drctl.planfile.shipped import find_by_name
from tests.unit.planfile.plans import GOOD, problems, read

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "plan.md").read_text()


def test_the_example_of_the_reference_is_accepted(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    plan = read(tmp_path, example)
    assert plan.hosts["db1"].port == 22
    objectives = plan.objectives_of(plan.services["docs"])
    assert objectives[DisasterClass.SERVER].rpo == timedelta(hours=3), "the service's own"
    assert objectives[DisasterClass.SITE].rpo == timedelta(hours=4), "the policy's"


def test_the_reference_names_every_shipped_policy() -> None:
    assert set(re.findall(r"`([a-z]+-\d+d)`", PAGE)) == set(find_by_name("policies", "/nonexistent"))


def test_every_word_the_reference_calls_an_error_is_one(tmp_path: Path) -> None:
    (listed,) = re.findall(r"something else than its text \((.*?)\)", PAGE, re.DOTALL)
    words = re.findall(r"`([^`]+)`", listed)
    assert len(words) == 9
    for word in words:
        assert "unquoted" in problems(tmp_path, GOOD.replace("Example AB", word))[0]
