"""Posteriors from somebody else: what they declare is held against what they hold, before memory is taken."""

import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from eorinfer.core.errors import InputError
from eorinfer.core.prior import Prior
from eorinfer.npe.architecture import Architecture
from eorinfer.npe.posterior import Posterior
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings, FlowSettings
from eorinfer.settings.survey import NoSurvey
from eorinfer.training.declared import no_larger_than
from simulators import GaussianField


@pytest.fixture(scope="module")
def posterior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A posterior that was never trained."""
    simulator = GaussianField(cells=8, box_length=8.0)
    prior, observable = Prior(simulator.parameters), simulator.observables[0]
    architecture = Architecture(
        EmbeddingSettings(width=4),
        FlowSettings(kind="zuko_nsf", transforms=1, hidden=(8,)),
        PowerSpectrumSettings(bins=3),
    )
    folder = tmp_path_factory.mktemp("made") / "posterior"
    networks = (architecture.build(prior, observable).eval(),)
    Posterior(prior, observable, NoSurvey(), architecture, networks).save(folder)
    Posterior.load(folder)
    return folder


def copied(posterior: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in posterior.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def refused(folder: Path) -> str:
    """Load, and return the error; it comes soon, and without memory."""
    tracemalloc.start()
    start = time.monotonic()
    try:
        with pytest.raises(InputError) as error:
            Posterior.load(folder)
        assert time.monotonic() - start < 10
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    assert str(folder) in str(error.value)
    return str(error.value)


HUGE = 10**9


@pytest.mark.parametrize(
    ("table", "key", "value", "message"),
    [
        ("flow", "hidden", [HUGE], "flow.hidden is far larger than the weights"),
        ("flow", "hidden", [100_000, 100_000], "flow.hidden is far larger than the weights"),
        ("flow", "hidden", [1] * 100_000, "flow.hidden is far larger than the weights"),
        ("flow", "transforms", HUGE, "flow.transforms is far larger"),
        ("flow", "transforms", 900_000, "make a network that is far larger than the weights"),
        ("flow", "options", {"num_bins": HUGE}, "flow.options.num_bins is far larger"),
        ("embedding", "width", HUGE, "embedding.width is far larger"),
        ("embedding", "width", 100_000, "make a network that is far larger than the weights"),
        ("embedding", "features", HUGE, "embedding.features is far larger"),
        (None, "ensemble", HUGE, "ensemble is far larger"),
        ("observable", "shape", [1, 10**6, 10**6], "GB of memory"),
        ("observable", "shape", [1, -8, 8], "its cubes have the shape"),
        ("observable", "shape", [1, 8], "and axes, cells or channels of another"),
        (None, "prior", [], "cannot be read"),
        (None, "embedding", 7, "cannot be read"),
    ],
)
def test_absurd_sizes(posterior: Path, tmp_path: Path, table: str | None, key: str, value: Any, message: str) -> None:
    folder = copied(posterior, tmp_path / "p")
    content = json.loads((folder / "posterior.json").read_text())
    (content if table is None else content[table])[key] = value
    (folder / "posterior.json").write_text(json.dumps(content))
    assert message in refused(folder)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone")


def deep(path: Path) -> None:
    path.write_text('{"format": 2, "prior": ' + "[" * 200_000)


def many(path: Path) -> None:
    path.write_text('{"format": 2, "prior": [' + "[]," * 2_000_000 + "[]]}")


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("weights.safetensors", pipe, "is a named pipe, not a file"),
        ("weights.safetensors", folder_instead, "is a folder, not a file"),
        ("weights.safetensors", dangling, "No such file"),
        ("weights.safetensors", lambda path: path.write_bytes(b"\xff" * 7 + b"\x7f{}"), "cannot be read"),
        ("weights.safetensors", lambda path: path.write_bytes(b"\x80\x04\x95"), "cannot be read"),
        ("posterior.json", pipe, "no posterior here"),
        ("posterior.json", deep, "too deep"),
        ("posterior.json", many, "lists and objects"),
        ("posterior.json", lambda path: path.write_text('{"format": ' + "9" * 100_000 + "}"), "cannot be read as JSON"),
        ("posterior.json", lambda path: path.write_text('{"format": 2}'), "('prior'), which posterior.json lacks"),
        ("posterior.json", lambda path: path.write_bytes(b"\xff\xfe"), "is not text in UTF-8"),
    ],
)
def test_files_that_are_none(
    posterior: Path, tmp_path: Path, name: str, spoil: Callable[[Path], object], message: str
) -> None:
    folder = copied(posterior, tmp_path / "p")
    spoil(folder / name)
    assert message in refused(folder)


def test_the_hook_is_gone_afterwards() -> None:
    with pytest.raises(ValueError, match="far larger"), no_larger_than({"a": torch.ones(1)}, {}):
        nn.Linear(10_000, 10_000, device="meta")
    with no_larger_than({"a": torch.ones(10_000, 10_000, device="meta")}, {}):
        nn.Linear(10_000, 10_000, device="meta")
    nn.Linear(10_000, 10_000, device="meta")


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("flow", "kind", "evil:f"),
        ("flow", "kind", "subprocess:Popen"),
        ("embedding", "network", "evil:f"),
        ("embedding", "summaries", ["power", "evil:f"]),
        ("survey", "kind", "evil:f"),
    ],
)
def test_no_module_beside_it_is_imported(
    posterior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, key: str, value: Any
) -> None:
    folder = copied(posterior, tmp_path / "p")
    for place in (tmp_path, folder):
        (place / "evil.py").write_text("from pathlib import Path\nPath(__file__).with_name('trace').touch()\nf = 1\n")
    monkeypatch.chdir(folder)
    content = json.loads((folder / "posterior.json").read_text())
    content[table][key] = value
    names = value if isinstance(value, list) else [value]
    for own in ({}, {name: "0" * 16 for name in names if ":" in name}):
        (folder / "posterior.json").write_text(json.dumps(content | {"own": own}))
        if table == "survey" and not own:
            # Nothing of a posterior builds its survey: it is read as data.
            assert Posterior.load(folder).survey.kind == value
        else:
            refused(folder)
    assert not (tmp_path / "trace").exists()
    assert not (folder / "trace").exists()


def test_a_region_that_leads_back_to_its_posterior(posterior: Path, tmp_path: Path) -> None:
    folder = copied(posterior, tmp_path / "p")
    content = json.loads((folder / "posterior.json").read_text())
    content["regions"] = [{"threshold": 0.0, "low": [-1, -1], "high": [1, 1]}]
    (folder / "posterior.json").write_text(json.dumps(content))
    (folder / "regions").mkdir()
    (folder / "regions" / "01").symlink_to("..")
    refused(folder)
