"""The benchmark of cubes, end to end on small ones: simulations, three networks, the fit of templates, and scores."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import record, separation_cubes
from eorinfer.core.files import read_json

METHODS = {"3D", "2D", "Wiener 3D", "Wiener 2D", "templates", "observed", "chance"}


def started(monkeypatch: pytest.MonkeyPatch, out: Path, *options: str) -> None:
    monkeypatch.setattr(record, "FOLDER", out / "results")
    monkeypatch.setattr(sys, "argv", ["separation_cubes", "--out", str(out), *options])
    separation_cubes.main()


@pytest.mark.parametrize(("options", "name"), [((), ""), (("--cubes", "3"), "_3_cubes")])
def test_cubes_are_separated_and_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], name: str
) -> None:
    small = ("--realisations", "4", "--pixels", "16", "--steps", "1", "--slice-steps", "1", "--width", "4")
    started(monkeypatch, tmp_path, *small, *options)
    figures = read_json(tmp_path / "results" / f"separation_3d_noise_free{name}.json")["figures"]
    assert sum(figures["cubes"].values()) == 4
    for line in separation_cubes.FOUND:
        methods = figures[line]["methods"]
        assert methods.keys() == METHODS
        # Channels were not mixed up: the fit of templates looks like the truth at every k, in both lines.
        assert min(methods["templates"]["r"]) > 0.5
    assert (tmp_path / "scores.png").exists()


def test_where_halpha_of_a_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ("--realisations", "8", "--pixels", "16", "--width", "4", "--slice-steps", "0")
    started(monkeypatch, tmp_path, *small, "--steps", "1", "--known")
    started(monkeypatch, tmp_path, *small, "--steps", "0")
    known, seen = (
        read_json(tmp_path / "results" / f"separation_3d_noise_free{name}.json")["figures"] for name in ("_known", "")
    )
    assert known["oiii"]["methods"].keys() == {"3D", "Wiener 3D", "chance"}
    assert known["cubes"] == seen["cubes"]
    better, worse = (one["oiii"]["methods"]["Wiener 3D"]["r"] for one in (known, seen))
    assert sum(better) > sum(worse) + 0.1


def test_too_few_channels_for_templates_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        started(monkeypatch, tmp_path, "--channels", "5")
    assert "--channels 5: the fit of templates needs 11" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cubes", [2, 3])
def test_a_sparse_sky_is_taken_apart_exactly(cubes: int) -> None:
    # Three galaxies of known redshifts in a pixel, one of which has its [OIII] alone in the channels.
    offset, channels, ratio = 3, 5, 0.5
    run = (cubes - 1) * offset + channels
    halpha = torch.zeros(1, 2, 2, run + offset)
    halpha[..., [4, 7, 9]] = torch.tensor([2.0, 1.0, 3.0])
    instrument = halpha[..., :run] + ratio * halpha[..., offset:]
    starts = (offset, 0, 2 * offset)[:cubes]
    observed = torch.stack([instrument[..., start : start + channels] for start in starts], 1)
    found = separation_cubes.by_templates(observed, offset, ratio)
    true = halpha[..., offset : offset + channels]
    torch.testing.assert_close(found, torch.stack([true, ratio * true], 1))
