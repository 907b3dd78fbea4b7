"""A user's own embedding, flow and summaries: trained, kept, loaded again, refused with a sentence."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import read_json
from eorinfer.core.samples import Samples
from eorinfer.npe.posterior import Posterior
from eorinfer.run import Run
from eorinfer.run.config import load_config
from tests.runs import call, config

HERE = Path(__file__).parent
EMBEDDING = {"network": "mynet:MyNet", "options": {"width": 4}, "width": None}
SUMMARIES = {"summaries": ["power", "mysummary:skewness", "mysummary:SmoothedVariance"], "width": 4}
FLOW = {"kind": "myflow:coarse_splines", "options": {"bins": 5}}


def folder_with(folder: Path, *modules: str) -> Path:
    for module in modules:
        shutil.copy(HERE / f"{module}.py", folder)
    return folder


def a_run(folder: Path, out: str = "out", **tables: Any) -> Run:
    rounds = {"rounds": [48], "samples": 200, "predictive": 0}
    return Run(load_config(config(folder, inference=rounds, **tables)), folder / out)


@pytest.mark.job
@pytest.mark.parametrize(
    ("modules", "tables"),
    [
        (["mynet"], {"embedding": EMBEDDING}),
        (["mynet"], {"embedding": EMBEDDING | {"power_spectrum": False}}),
        (["mysummary"], {"embedding": SUMMARIES}),
        (["mysummary"], {"embedding": SUMMARIES | {"convolution": False}}),
        (["myflow"], {"flow": FLOW}),
        ([], {"flow": {"kind": "zuko_bpf", "options": {"degree": 8}}}),
        ([], {"flow": {"kind": "mdn", "options": {"num_components": 3}}}),
        ([], {"embedding": {"summaries": []}}),
    ],
    ids=["network", "network-alone", "summaries", "summaries-alone", "flow", "zuko-options", "mdn", "no-summaries"],
)
def test_a_posterior_is_trained_kept_and_loaded(tmp_path: Path, modules: list[str], tables: dict[str, Any]) -> None:
    run = a_run(folder_with(tmp_path, *modules), **tables)
    samples = run.infer()
    assert samples.values.shape == (200, 2)
    assert np.isfinite(samples.values).all()
    key = read_json(run.out / "posterior" / "posterior.json")["facts"]["key"]
    kept = Posterior.load(run.out / "posterior", run.out if modules else None)
    assert kept.facts["key"] == key
    again = kept.sample(run.observe(), 200, 5).values
    np.testing.assert_array_equal(
        again, Posterior.load(str(run.out / "posterior"), str(tmp_path)).sample(run.observe(), 200, 5).values
    )
    for module in modules:
        assert (run.out / f"{module}.py").read_bytes() == (tmp_path / f"{module}.py").read_bytes()
    # The run folder alone is enough to go on: the modules lie beside the config there.
    before = (run.out / "rounds/01/posterior/weights.safetensors").stat().st_mtime_ns
    continued = Run(load_config(run.out / "config.toml"), run.out)
    np.testing.assert_array_equal(continued.infer().values, samples.values)
    assert (run.out / "rounds/01/posterior/weights.safetensors").stat().st_mtime_ns == before, "trained again"


@pytest.mark.job
def test_the_source_is_part_of_the_key(tmp_path: Path) -> None:
    run = a_run(folder_with(tmp_path, "mynet"), embedding=EMBEDDING)
    rows = run.first_rows(run.observe())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mynet.py").write_text((tmp_path / "mynet.py").read_text().replace("SiLU", "ReLU"))
    other = a_run(elsewhere, embedding=EMBEDDING)
    assert run.training_key(rows) != other.training_key(rows)


@pytest.mark.job
def test_a_bundle_says_what_to_give(tmp_path: Path) -> None:
    run = a_run(folder_with(tmp_path, "mynet"), embedding=EMBEDDING)
    run.infer()
    bundle = tmp_path / "bundle"
    shutil.copytree(run.out / "posterior", bundle)
    # It lies beside the bundle, and inside: nobody has named it.
    for place in (tmp_path, bundle):
        (place / "mynet.py").write_text("raise SystemExit('imported')")
    with pytest.raises(InputError, match=r'made with your own "mynet:MyNet"; name the folder of mynet\.py: --modules'):
        Posterior.load(bundle)
    observation = run.out / "observation.h5"
    again = ("infer", "--posterior", bundle, "--observation", observation, "--samples", 50, "--out", tmp_path / "a")
    assert call(*again) == 2
    assert call(*again, "--modules", run.out) == 0
    assert len(Samples.read(tmp_path / "a/chains/npe")) == 50
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "mynet.py").write_text((HERE / "mynet.py").read_text() + "\nmore = 1\n")
    with pytest.raises(InputError, match="made with another version of your own"):
        Posterior.load(bundle, changed)
    with pytest.raises(InputError, match=r"there is no mynet.py in"):
        Posterior.load(bundle, tmp_path / "nothing")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"embedding": {"network": "MyNet"}}, r'\[embedding\] network: must be "module:Class"'),
        ({"embedding": {"network": "nothere:MyNet", "width": None}}, "there is no nothere.py in"),
        ({"embedding": {"network": "mynet:Other", "width": None}}, 'has no class or function "Other"'),
        (
            {"embedding": {"network": "wrong:Short", "width": None}},
            r'"wrong:Short" makes of \(3, 1, 8, 8\) \(3, 7\), not \(3, 8\)',
        ),
        ({"embedding": EMBEDDING | {"options": {"depth": 4}}}, "unexpected keyword argument 'depth'"),
        ({"embedding": {"options": {"depth": 4}}}, "options: only with network"),
        ({"embedding": EMBEDDING | {"width": 4}}, "width and redshifts are the built-in CNN's"),
        (
            {"embedding": {"summaries": ["bispectrum"]}},
            '"bispectrum" is not known: one of "power", "joint-power", "scattering", or',
        ),
        ({"embedding": {"summaries": ["power"], "scattering": True}}, "summaries says it already"),
        ({"embedding": {"summaries": ["wrong:total"]}}, r'"wrong:total" makes of \(3, 1, 8, 8\) \(\), not \(3, ...\)'),
        (
            {"embedding": {"summaries": ["wrong:inplace"]}},
            r'"wrong:inplace" changes the cubes that it is given; let it',
        ),
        ({"embedding": {"summaries": ["wrong:mixing"]}}, r'"wrong:mixing" makes something else of a cube among others'),
        (
            {"embedding": {"network": "wrong:Random", "width": None}},
            r'network = "wrong:Random" makes something else of a cube among others than of the cube alone',
        ),
        ({"flow": {"kind": "zuko_xyz"}}, '"zuko_xyz" is not known: one of "zuko_nsf", .* or "module:function"'),
        ({"flow": {"kind": "zuko_ncsf"}}, "a density on a circle"),
        ({"flow": {"kind": "zuko_bpf", "options": {"degre": 8}}}, "degre"),
        ({"flow": {"kind": "mdn", "options": {"componets": 8}}}, "componets"),
        ({"flow": {"kind": "mdn", "hidden": [8, 16]}}, "layers of one width"),
        ({"flow": {"kind": "wrong:no_flow"}}, r"sample\(\(2,\), condition\): AttributeError"),
        ({"flow": {"kind": "gaussian", "options": {"degree": 8}}}, "takes none"),
    ],
)
def test_what_cannot_be_used_is_refused_before_simulating(tmp_path: Path, tables: dict[str, Any], message: str) -> None:
    (tmp_path / "wrong.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Short(nn.Module):\n"
        "    def __init__(self, shape, features): super().__init__()\n"
        "    def forward(self, cubes): return cubes.flatten(1)[:, :7]\n"
        "class Random(nn.Module):\n"
        "    def __init__(self, shape, features): super().__init__(); self.layer = nn.LazyLinear(features)\n"
        "    def forward(self, cubes): return self.layer(cubes.flatten(1) * torch.rand(1))\n"
        "def total(cubes): return cubes.sum()\n"
        "def inplace(cubes): cubes -= cubes.mean(); return cubes.flatten(2).std(-1)\n"
        "def mixing(cubes): return (cubes - cubes.mean(0, keepdim=True)).flatten(2).std(-1)\n"
        "def no_flow(inputs, condition): return nn.Linear(inputs, condition)\n"
    )
    with pytest.raises(InputError, match=message) as caught:
        load_config(config(folder_with(tmp_path, "mynet"), **tables))
    assert str(caught.value).startswith(f"{tmp_path}/run.toml: [")
    assert "\n" not in str(caught.value)


@pytest.mark.job
def test_a_summary_that_is_no_number_is_named(tmp_path: Path) -> None:
    (tmp_path / "logs.py").write_text("import torch\ndef log_mean(c): return torch.log(c.flatten(2).mean(-1))\n")
    run = a_run(tmp_path, embedding={"summaries": ["logs:log_mean"], "convolution": False})
    with pytest.raises(WorkError, match=r"\[embedding\] summaries: log_mean is not finite for \d+ of \d+ observed"):
        run.infer()
