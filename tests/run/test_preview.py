"""The preview names the array behind a survey, and advises chunks of a light-cone."""

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


@pytest.mark.job
@pytest.mark.parametrize(
    ("chunks", "line"),
    [
        ({}, ", of the whole light-cone; [power_spectrum] chunks = 3 cuts it into parts as deep as they are wide"),
        ({"power_spectrum": {"chunks": 2}}, ", in 2 chunks, z = 7.93, 8.87"),
    ],
)
def test_it_advises_chunks_of_a_deep_light_cone(tmp_path: Path, chunks: dict[str, object], line: str) -> None:
    cone = {"kind": "21cmfast-lightcone", "redshift_range": [7.5, 9.4], "cells": 16, "box_length": 160.0}
    changed = {"simulator": cone, "observation": {"theta": {"F_ESC10": -1.0}}, "inference": {"rounds": [40]}}
    changed["simulator"]["parameters"] = ["F_ESC10"]
    path = tmp_path / "run.toml"
    path.write_text(tomli_w.dumps(changed | chunks))
    (said,) = [one for one in preview(path) if one.startswith("power spectrum: 8 bins from k = ")]
    assert said.endswith(line)
