"""`eorinfer separate`, as a user would start it, on small mocks."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.io import fits

from eorinfer.campaign import plans
from eorinfer.core.progress import Lines
from eorinfer.run.config import load_config
from eorinfer.run.line_separation import Separation
from eorinfer.separation import calibration
from eorinfer.separation.model import Separator
from tests.mocks import SLAB
from tests.runs import call, config

SEPARATION = {"simulations": 32, "steps": 6, "width": 4, "widest": 8, "batch_size": 8, "flow_steps": 2}


@pytest.fixture(scope="module", autouse=True)
def few_maps() -> Iterator[None]:
    """Let the correction of draws be fitted on 32 maps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "MAPS", 32)
        yield


def separate_config(folder: Path, name: str = "separate.toml", **tables: Any) -> Path:
    content: dict[str, Any] = {
        "simulator": {"cells": None} | SLAB,
        "prior": None,
        "survey": {"kind": "spherex", "sigma": None},
        "separation": SEPARATION,
        **dict.fromkeys(("observation", "inference", "embedding", "flow", "training", "power_spectrum", "mcmc")),
    }
    for table, value in tables.items():
        old = content.get(table)
        content[table] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
    return config(folder, name, **content)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bank and a separator."""
    folder = tmp_path_factory.mktemp("separate")
    assert call("separate", "train", separate_config(folder), "--out", folder / "out") == 0
    return folder


def test_a_separator_is_trained_once(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    separator = Separator.load(trained / "out/separator")
    assert separator.spec.lines == ["ha", "oiii"]
    facts = separator.spec.facts
    assert facts["simulator"]["kind"] == "lim-mock"
    assert not set(facts["seeds"]["training"]) & set(facts["seeds"]["test"])
    assert not list((trained / "out").glob("checkpoints-*"))
    before = (trained / "out/separator/weights.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert call("separate", "train", trained / "separate.toml", "--out", trained / "out") == 0
    assert (trained / "out/separator/weights.safetensors").stat().st_mtime_ns == before
    assert "32 simulations, all of them in the bank" in capsys.readouterr().out


def test_a_training_begun_with_the_networks_of_before_goes_on(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "out", tmp_path / "out")
    path = separate_config(tmp_path)
    step = Separation(load_config(path, "separation"), tmp_path / "out")
    key = step._key(step.simulate())
    assert not step.train().spec.earlier
    shutil.rmtree(tmp_path / "out/separator")
    (tmp_path / f"out/checkpoints-{key}").mkdir()
    assert step.train().spec.earlier
    assert Separator.load(tmp_path / "out/separator").spec.earlier
    assert step.train().facts["key"] == key


def test_fewer_simulations_are_any_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a stopped campaign those at the front of the plan alone were used, and others were made anew."""
    monkeypatch.setattr(plans, "SHARD_ROWS", 8)
    step = Separation(load_config(separate_config(tmp_path), "separation"), tmp_path / "out")
    every = step.simulate()
    (plan,) = step.bank.plans()
    assert plan.shards == 4
    step.bank.shard_path(plan, 1).unlink()
    few = load_config(separate_config(tmp_path, "few.toml", separation={"simulations": 20}), "separation")
    capsys.readouterr()
    rows = Separation(few, tmp_path / "out", Lines()).simulate()
    assert rows.seed.tolist() == every.seed[[*range(8), *range(16, 28)]].tolist()
    assert step.bank.missing(plan) == [1], "none was made"
    assert "20 simulations, all of them in the bank" in capsys.readouterr().out
    # They stay the same when others come.
    step.simulations.fill([plans.Used(plan, 32)], "others")
    assert Separation(few, tmp_path / "out").simulate().seed.tolist() == rows.seed.tolist()
    # One of theirs that is set aside is not made again while others are there.
    step.bank.shard_path(plan, 3).unlink()
    assert len(Separation(few, tmp_path / "out").simulate()) == 20
    assert step.bank.missing(plan) == [3]


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"separation": {"loss": "l2"}}, "[separation] loss: must be 'talk', 'wasserstein' or 'l1' (given: 'l2')"),
        ({"separation": {"wieght": 3}}, '[separation] wieght: unknown key, did you mean "weight"?'),
        ({"separation": {"targets": ["hb"]}}, '[separation] targets: "hb" is not a line of this simulator'),
        ({"separation": {"depth": 6}}, "[separation] 32 x 32 cells can be halved 5 times, not 6"),
        ({"separation": {"dropout": 1.0}}, "[separation] dropout: must be below 1 (given: 1.0)"),
        (
            {"simulator": {"kind": "gaussian-field", "cells": 8} | dict.fromkeys(set(SLAB) - {"kind"}), "survey": None},
            '[separation] the simulator gives "field" alone',
        ),
        ({"survey": {"kind": "spherx"}}, 'one of "none", "white-noise", "ska-low", "spherex"'),
    ],
)
def test_what_is_wrong_with_a_config_is_said_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tables: dict[str, Any], said: str
) -> None:
    assert call("separate", "train", separate_config(tmp_path, **tables), "--out", tmp_path / "out") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_another_separator_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = separate_config(trained, "other.toml", separation={"clip": 30.0})
    assert call("separate", "train", other, "--out", trained / "out") == 2
    assert "[separation] clip = 30.0, but" in capsys.readouterr().err


@pytest.fixture(scope="module")
def mocks(trained: Path) -> Path:
    """Larger maps of the same pixels, as `eorinfer lim` writes them."""
    path = separate_config(
        trained,
        "mocks.toml",
        simulator={"pixels": 40},
        observation={"theta": {"A_HA": 0.0, "A_OIII": 0.0}},
        inference={"rounds": [1]},
    )
    assert call("lim", path, "--out", trained / "mocks", "--fits") == 0
    return trained / "mocks"


def test_maps_are_separated_in_all_formats(trained: Path, mocks: Path) -> None:
    model = trained / "out/separator"
    assert call("separate", "apply", model, mocks / "mock-000.h5", "--out", trained / "a/lines.h5") == 0
    with h5py.File(trained / "a/lines.h5") as file, h5py.File(mocks / "mock-000.h5") as mock:
        assert sorted(file) == ["ha", "observed", "oiii"]
        lines = {name: file[name][:] for name in ("ha", "oiii")}
        np.testing.assert_array_equal(file["observed"][:], mock["observed"][:])
        assert file["observed"].attrs["unit"] == "nW/m^2/sr"
        np.save(trained / "sky.npy", file["observed"][:])
    assert lines["ha"].shape == (40, 40)
    for name in (mocks / "mock-000.fits", trained / "sky.npy"):
        assert call("separate", "apply", model, name, "--out", trained / "a/lines.fits", "--draws", "3") == 0
        with fits.open(trained / "a/lines.fits") as file:
            names = [hdu.name for hdu in file]
            assert names == ["PRIMARY", "HA", "OIII", "HA_SPREAD", "OIII_SPREAD", "HA_DRAWS", "OIII_DRAWS"]
            assert file["HA_DRAWS"].data.shape == (3, 40, 40)
            # The posterior mean, whatever the number of draws.
            np.testing.assert_allclose(file["HA"].data, lines["ha"], rtol=1e-4, atol=1e-9)
            assert file["HA"].header["CTYPE1"] == "DEC--TAN"
            correlation = np.corrcoef(file["HA"].data.ravel(), lines["ha"].ravel())[0, 1]
            assert correlation > 0.9


def test_the_place_on_the_sky_is_kept(trained: Path, mocks: Path) -> None:
    with fits.open(mocks / "mock-000.fits") as file:
        file[0].header["CRVAL2"] = 30.0
        file.writeto(trained / "there.fits")
    assert (
        call("separate", "apply", trained / "out/separator", trained / "there.fits", "--out", trained / "t.fits") == 0
    )
    assert fits.getheader(trained / "t.fits", "OIII")["CRVAL2"] == 30.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("pixel", "cell_size is [0.47"),
        ("unit", "unit is 'mK', expected 'nW/m^2/sr'"),
        ("axes", "axes is ('wavelength', 'x', 'z')"),
        ("channels", "wavelengths is [1.6], expected [1.509]"),
        ("small", "the map has shape (1, 16, 40), the separator takes (1, 32, 32) (wavelength, x, y) or more pixels"),
        ("nan", "1 of 1600 pixels are NaN, and a separator needs all of them: its training had no masked pixels;"),
        ("mask", "32 of 1600 pixels are masked, and a separator needs all of them: its training had no masked pixels;"),
        ("fits", "cell_size is"),
        ("none", "no such file"),
        ("suffix", "separated maps are .h5, .hdf5 or .fits files"),
        ("draws", "--draws -1: it must be at least 0"),
        ("itself", "is the observed map itself, which would be lost; give another --out"),
    ],
)
def test_maps_that_do_not_fit(
    trained: Path, mocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, said: str
) -> None:
    source, out, more = tmp_path / "sky.h5", tmp_path / "lines.h5", ["--draws", "-1"] if change == "draws" else []
    shutil.copyfile(mocks / "mock-000.h5", source)
    with h5py.File(source, "r+") as file:
        data = file["observed"]
        if change == "pixel":
            data.attrs["cell_size"] = 0.5 * data.attrs["cell_size"]
            data.attrs["field_of_view"] *= 0.5
        elif change in ("unit", "axes", "channels"):
            name, value = {
                "unit": ("unit", "mK"),
                "axes": ("axes", ["wavelength", "x", "z"]),
                "channels": ("wavelengths", [1.6]),
            }[change]
            data.attrs[name] = value
        elif change == "nan":
            data[0, 3, 3] = np.nan
        elif change == "mask":
            file["mask"] = np.arange(1600).reshape(data.shape) < 32
        elif change == "small":
            attributes, values = dict(data.attrs), data[:, :16]
            del file["observed"]
            file.create_dataset("observed", data=values).attrs.update(attributes)
    if change in ("fits", "header"):
        source = tmp_path / "sky.fits"
        with fits.open(mocks / "mock-000.fits") as images:
            images[0].header["CDELT2"] *= 2
            images[0].header["CDELT1"] *= 2
            images.writeto(source)
    elif change == "none":
        source = tmp_path / "other.h5"
    elif change == "itself":
        before, out = source.read_bytes(), source
    elif change == "suffix":
        out = tmp_path / "lines.txt"
    assert call("separate", "apply", trained / "out/separator", source, "--out", out, *more) == 2
    assert said in capsys.readouterr().err
    assert source.read_bytes() == before if change == "itself" else not out.exists()


def test_scores_beside_the_baselines(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, path = trained / "out/separator", trained / "separate.toml"
    assert call("separate", "score", model, "--config", path, "--out", trained / "out", "--l1", model) == 0
    table = capsys.readouterr().out
    scores = json.loads((trained / "out/scores.json").read_text())
    test = Separator.load(model).spec.facts["seeds"]["test"]
    assert scores["maps"] == 8 * len(test)
    for name in ("ha", "oiii"):
        assert f"{name}: {scores['maps']} maps" in table
        found = scores["lines"][name]
        assert list(found["spectra"]) == ["GAN", "L1 alone", "a draw", "mean of draws", "Wiener", "observed"]
        assert found["spectra"]["GAN"] == found["spectra"]["L1 alone"]
        assert len(found["power_of_draws"]["off"]) == len(scores["k"])
    assert table.count("draws, mean P") == 2
    # Of peaks too, above thresholds that were chosen on validation maps, which are not scored.
    chosen = Separator.load(model).spec.facts["thresholds"]
    for name, line in scores["lines"].items():
        assert {k: v["threshold"] for k, v in line["at_threshold"].items()} == {
            k: chosen[name][k] for k in ("best", "precise") if chosen[name][k] is not None
        }
    assert table.count("chosen on validation maps") == sum(len(x["at_threshold"]) for x in scores["lines"].values())
    # Draws are scored first.
    assert table.index(f"8 draws of {scores['maps']} maps, beside the truth") < table.index("ha: ")
    assert "unlike_training" not in scores
    assert scores["of_draws"]["p_holm"] <= 1
    assert (trained / "out/scores.png").stat().st_size > 10_000
    # Through the survey of the training, the bank alone gives the same.
    bank = trained / "out/bank"
    assert call("separate", "score", model, "--bank", bank, "--out", trained / "b", "--l1", model) == 0
    assert json.loads((trained / "b/scores.json").read_text())["lines"] == scores["lines"]


def test_scores_on_other_mocks(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = separate_config(
        trained, "relation.toml", seed=2, simulator={"star_formation": "fonseca17"}, separation={"simulations": 16}
    )
    model = trained / "out/separator"
    assert call("separate", "score", model, "--config", other, "--out", trained / "relation", "--maps", "9") == 0
    said = capsys.readouterr().out
    assert "ha: 9 maps" in said
    unlike = ["[simulator] star_formation = fonseca17 (trained: gong17)"]
    assert f"these mocks are not like those of its training: {unlike[0]}\n" in said
    assert json.loads((trained / "relation/scores.json").read_text())["unlike_training"] == unlike


def test_scores_that_cannot_be(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = trained / "out/separator"
    larger = separate_config(trained, "larger.toml", simulator={"pixel": 1.6}, separation={"simulations": 8})
    wrong: list[tuple[list[Any], str]] = [
        ([], "score needs mocks: --config CONFIG, --bank BANK"),
        (["--bank", tmp_path / "none"], "no bank here"),
        (["--bank", trained / "out/bank", "--maps", "1"], "at least 2 maps and a positive radius"),
        (["--bank", trained / "out/bank", "--l1", tmp_path], "no separator here"),
        (["--config", larger], "cell_size is [1.89"),
    ]
    for arguments, said in wrong:
        assert call("separate", "score", model, "--out", tmp_path / "scores", *arguments) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "scores" / "bank").exists(), "nothing is simulated for what is refused"


def test_too_few_realisations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = separate_config(tmp_path, separation={"simulations": 10})
    assert call("separate", "train", path, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "simulations = 10: 2 realisation(s) of 8 ([simulator] rows_per_realisation); at least three" in said
    assert not (tmp_path / "out").exists(), "the folder is free for the mended config"


def test_what_is_assumed_of_a_map_is_said(
    trained: Path, mocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fits.open(mocks / "mock-000.fits") as file:
        header, values = file[0].header, file[0].data
        header["BUNIT"] = "W m-2 sr-1"
        del header["CHAN0"]
        fits.PrimaryHDU(values * np.float32(1e-9), header).writeto(tmp_path / "sky.fits")
    out = tmp_path / "lines.fits"
    assert call("separate", "apply", trained / "out/separator", tmp_path / "sky.fits", "--out", out) == 0
    said = capsys.readouterr().out
    assert "sky.fits: unit: converted from W m-2 sr-1 to nW/m^2/sr, times 1e+09" in said
    assert "the file names no wavelength; that of the simulations is taken: 1.509" in said
    np.testing.assert_allclose(fits.getdata(out), values, rtol=1e-5)
    assert {hdu.header["BUNIT"] for hdu in fits.open(out)} == {"nW/m^2/sr"}


def test_the_tables_of_a_run_may_stand_beside_it(tmp_path: Path) -> None:
    path = separate_config(
        tmp_path,
        inference={"rounds": [4]},
        observation={"theta": {"A_HA": 0.0, "A_OIII": 0.0}},
        separation={"steps": 1},
    )
    assert call("separate", "train", path, "--out", tmp_path / "out") == 0
    assert "inference" not in (tmp_path / "out/config.toml").read_text()
