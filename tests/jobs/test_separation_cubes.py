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


def test_cubes_are_separated_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ("--realisations", "4", "--pixels", "16", "--steps", "1", "--slice-steps", "1", "--width", "4")
    started(monkeypatch, tmp_path, *small)
    figures = read_json(tmp_path / "results" / "separation_3d_noise_free.json")["figures"]
    assert sum(figures["cubes"].values()) == 4
    for line in separation_cubes.FOUND:
        methods = figures[line]["methods"]
        assert methods.keys() == METHODS
        # Channels were not mixed up: the fit of templates looks like the truth at every k, in both lines.
        assert min(methods["templates"]["r"]) > 0.5
    assert (tmp_path / "scores.png").exists()


def test_too_few_channels_for_templates_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        started(monkeypatch, tmp_path, "--channels", "5")
    assert "--channels 5: the fit of templates needs 11" in capsys.readouterr().err


def test_a_sparse_sky_is_taken_apart_exactly() -> None:
    # Three galaxies of known redshifts in a pixel, one of which has its [OIII] alone in the channels.
    offset, channels, ratio = 3, 5, 0.5
    halpha = torch.zeros(1, 2, 2, offset + channels + offset)
    halpha[..., [4, 7, 9]] = torch.tensor([2.0, 1.0, 3.0])
    instrument = halpha[..., : offset + channels] + ratio * halpha[..., offset:]
    observed = torch.stack([instrument[..., offset:], instrument[..., :channels]], 1)
    found = separation_cubes.by_templates(observed, offset, ratio)
    true = halpha[..., offset : offset + channels]
    torch.testing.assert_close(found, torch.stack([true, ratio * true], 1))
