"""The preview names the array behind a survey."""

from pathlib import Path

import pytest
import tomli_w

from eorinfer.run.preview import preview
from tests.survey.test_positions import COEVAL, HEADED


@pytest.mark.job  # checking that 21cmFAST is there imports it
@pytest.mark.parametrize(
    ("survey", "line"),
    [
        ({}, 'survey: ska-low, AA4, 1000 h, sefd "aavs2"'),
        ({"layout": "HERA", "hours": 500.0}, 'survey: ska-low, HERA, 500 h, sefd "sky"'),
        (
            {"layout": "a.csv", "latitude": -30.0, "sefd": 2e3, "hours": 9},
            "survey: ska-low, a.csv (3 antennas), 9 h, sefd 2000 Jy",
        ),
        ({"sefd": [[100.0, 3000.0], [200.0, 1800.0]]}, "survey: ska-low, AA4, 1000 h, sefd of the table"),
    ],
)
def test_it_names_the_array(tmp_path: Path, survey: dict[str, object], line: str) -> None:
    (tmp_path / "a.csv").write_text(HEADED)
    path = tmp_path / "run.toml"
    changed = {"survey": {"kind": "ska-low"} | survey, "inference": {"rounds": [40]}}
    path.write_text(tomli_w.dumps(COEVAL | changed))
    assert line in preview(path)
