"""A user's own survey: run, kept in bundles, refused with a sentence; and one more in the tree's own table."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eorinfer.core.errors import InputError
from eorinfer.imageflow.conditions import acts_on_cells, draws_noise_everywhere
from eorinfer.npe.posterior import Posterior
from eorinfer.run import Run
from eorinfer.run.config import load_config
from eorinfer.settings.survey import KINDS, UnknownSurvey
from tests.runs import config

HERE = Path(__file__).parent
SURVEY = {"kind": "mytelescope:MySurvey", "fwhm": 1.5, "sigma": 0.2}


def a_config(folder: Path, **tables: Any) -> Path:
    folder.mkdir(exist_ok=True)
    shutil.copy(HERE / "mytelescope.py", folder)
    return config(folder, **({"inference": {"rounds": [48], "samples": 100, "predictive": 0}} | tables))


@pytest.mark.job
def test_a_run_through_it(tmp_path: Path) -> None:
    run = Run(load_config(a_config(tmp_path, survey=SURVEY)), tmp_path / "out")
    samples = run.infer()
    assert np.isfinite(samples.values).all()
    assert (run.out / "mytelescope.py").read_bytes() == (HERE / "mytelescope.py").read_bytes()
    again = load_config(run.out / "config.toml")
    assert type(again.tables.survey).__name__ == "MySurvey"
    assert again.content()["survey"] == SURVEY
    np.testing.assert_array_equal(Run(again, run.out).infer().values, samples.values)
    # The networks need no survey to be used: nothing of the module is imported.
    kept = Posterior.load(run.out / "posterior")
    assert isinstance(kept.survey, UnknownSurvey)
    assert kept.survey.model_dump() == SURVEY
    assert kept.sample(run.observe(), 50, 3).values.shape == (50, 2)


@pytest.mark.job
def test_its_source_and_settings_are_in_the_key(tmp_path: Path) -> None:
    run = Run(load_config(a_config(tmp_path, survey=SURVEY)), tmp_path / "out")
    rows = run.first_rows(run.observe())
    other = tmp_path / "other"
    path = a_config(other, survey=SURVEY, bank={"path": str(tmp_path / "out" / "bank")})
    same = Run(load_config(path), other / "out").training_key(rows)
    assert same == run.training_key(rows)
    changed = tmp_path / "changed"
    path = a_config(changed, survey=SURVEY, bank={"path": str(tmp_path / "out" / "bank")})
    (changed / "mytelescope.py").write_text((HERE / "mytelescope.py").read_text() + "\nCHANGED = True\n")
    assert Run(load_config(path), changed / "out").training_key(rows) != same


def test_what_the_image_flow_asks_of_it(tmp_path: Path) -> None:
    survey = load_config(a_config(tmp_path, survey=SURVEY)).tables.survey
    assert draws_noise_everywhere(survey)
    assert not acts_on_cells(survey)


@pytest.mark.job
def test_one_more_in_the_tree_is_a_file_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "beam", "tests.doors.mytelescope:MySurvey")
    made = load_config(a_config(tmp_path, survey=SURVEY | {"kind": "beam"}))
    assert made.tables.survey.kind == "beam"
    assert Run(made, tmp_path / "out").observe().values.shape == (1, 8, 8)
    with pytest.raises(InputError, match='"ska-low", "spherex", "beam", or "module:Class" for your own'):
        load_config(a_config(tmp_path, survey={"kind": "bem", "sigma": None}))


def test_noise_that_depends_on_the_cubes_is_taken(tmp_path: Path) -> None:
    """Photons of all cubes first, then noise: what comes after depends on how many random numbers the cubes took."""
    (tmp_path / "counts.py").write_text(
        "import torch\n"
        "from eorinfer.survey import SurveyTable\n"
        "from eorinfer.survey.base import Survey\n"
        "class Photons(Survey):\n"
        "    def forward(self, clean, generator):\n"
        "        counts = torch.poisson(20 * clean.clamp(-1, 40) + 20, generator=generator)\n"
        "        return counts + torch.randn(clean.shape, generator=generator)\n"
        "class Logarithm(Survey):\n"
        "    def forward(self, clean, generator): return clean.log() + torch.randn(clean.shape, generator=generator)\n"
        "class Counts(SurveyTable):\n    def build(self, observable): return Photons()\n"
        "class OfPositive(SurveyTable):\n    def build(self, observable): return Logarithm()\n"
    )
    for name in ("Counts", "OfPositive"):
        made = load_config(a_config(tmp_path, survey={"kind": f"counts:{name}", "sigma": None}))
        assert type(made.tables.survey).__name__ == name


@pytest.mark.parametrize(
    ("survey", "message"),
    [
        ({"kind": "nothere:MySurvey"}, "there is no nothere.py in"),
        ({"kind": "mytelescope:Other"}, 'has no class or function "Other"'),
        ({"kind": "mytelescope:BeamSurvey"}, r"is no survey: derive it from eorinfer\.survey\.SurveyTable"),
        (SURVEY | {"fwhm": -1.0}, "fwhm: Input should be greater than 0"),
        (SURVEY | {"beam": 1.0}, "beam: Extra inputs are not permitted"),
        (SURVEY | {"fwhm": 100.0}, "fwhm = 100 Mpc is wider than the box"),
        ({"kind": "wrong:Lazy"}, r'kind = "wrong:Lazy": Lazy has no build\(observable\)'),
        ({"kind": "wrong:Plain"}, "build makes a Identity; derive it from eorinfer.survey.base.Survey"),
        ({"kind": "wrong:Global"}, "gives two results for one seed"),
        ({"kind": "wrong:Broken"}, "ZeroDivisionError"),
        ({"kind": "wrong:OfBatch"}, "makes something else of a cube among others than of the cube alone"),
        ({"kind": "wrong:Centred"}, "makes something else of a cube among others than of the cube alone"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, survey: dict[str, Any], message: str) -> None:
    (tmp_path / "wrong.py").write_text(
        "import torch\n"
        "from eorinfer.survey import SurveyTable\n"
        "from eorinfer.survey.base import Survey\n"
        "class Noisy(Survey):\n"
        "    def forward(self, clean, generator): return clean + torch.randn_like(clean)\n"
        "class Lazy(SurveyTable): pass\n"
        "class Plain(SurveyTable):\n    def build(self, observable): return torch.nn.Identity()\n"
        "class Global(SurveyTable):\n    def build(self, observable): return Noisy()\n"
        "class Broken(SurveyTable):\n    def build(self, observable): return 1 / 0\n"
        "class Divided(Survey):\n"
        "    def forward(self, clean, generator):\n"
        "        return clean / clean.std() + 0.5 * torch.randn(clean.shape, generator=generator)\n"
        "class OfBatch(SurveyTable):\n    def build(self, observable): return Divided()\n"
        "class Less(Survey):\n    def forward(self, clean, generator): return clean - clean.mean()\n"
        "class Centred(SurveyTable):\n    def build(self, observable): return Less()\n"
    )
    with pytest.raises(InputError, match=message) as caught:
        load_config(a_config(tmp_path, survey={"sigma": None} | survey))
    assert str(caught.value).startswith(f"{tmp_path}/run.toml: [survey]")
    assert "\n" not in str(caught.value)
