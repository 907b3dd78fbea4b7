"""The config: what is right loads and is written back, what is wrong is said in a line one can act on."""

import math
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from eorinfer.core.errors import InputError
from eorinfer.run import Run
from eorinfer.run.config import Config, load_config
from eorinfer.settings.prior import FORMS
from simulators import KINDS, fingerprint
from tests.runs import config as tiny

#: The example of the issue and of the README.
EXAMPLE = """
seed = 1
[simulator]
kind = "21cmfast-coeval"
redshifts = [7.0, 8.0, 9.0]
cells = 32
box_length = 128.0                      # comoving Mpc
parameters = ["F_ESC10", "ALPHA_ESC", "M_TURN"]
[prior]                                 # optional: other ranges than the parameters' own
F_ESC10 = [-2.0, 0.0]
[survey]
kind = "ska-low"
[observation]                           # one of the two
theta = { F_ESC10 = -1.0, ALPHA_ESC = -0.5, M_TURN = 8.7 }
[inference]
rounds = [600, 300]
[mcmc]
walkers = 32
steps = 2000
"""

GAUSSIAN = """
[simulator]
kind = "gaussian-field"
[survey]
kind = "white-noise"
sigma = 0.3
[observation]
theta = { log_amplitude = 0.0, slope = -2.0 }
[inference]
rounds = [100]
"""

MINE = """
from simulators import GaussianField

class Mine(GaussianField):
    strength: float = 1.0
"""

Loader = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Loader:
    """Load a config with some of its text replaced."""

    def load(*changes: tuple[str, str], text: str = EXAMPLE) -> Config:
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} is not once in the config"
            text = text.replace(old, new)
        path = tmp_path / "run.toml"
        path.write_text(text)
        return load_config(path)

    return load


def test_the_example_of_the_issue(load: Loader) -> None:
    config = load()
    assert config.simulator.kind == "21cmfast-coeval"
    assert config.prior.names == ["F_ESC10", "ALPHA_ESC", "M_TURN"]
    assert config.prior.low.tolist() == [-2.0, -1.0, 8.0]
    assert config.prior.high.tolist() == [0.0, 0.5, 10.0]
    assert config.theta is not None
    assert config.theta.tolist() == [-1.0, -0.5, 8.7]
    assert config.tables.inference.rounds == (600, 300)
    assert config.tables.mcmc.max_steps == 50000
    assert config.observable.name == "brightness_temp"
    assert config.bank_path(Path("out")) == Path("out/bank")


def test_only_three_tables_are_required(load: Loader) -> None:
    config = load(
        text="""
        simulator = { kind = "gaussian-field" }
        observation = { file = "observed.h5" }
        inference = { rounds = [1] }
        """
    )
    assert config.tables.survey.kind == "none"
    assert config.theta is None


@pytest.mark.parametrize("text", [EXAMPLE, GAUSSIAN])
def test_what_is_written_reads_back_the_same(load: Loader, tmp_path: Path, text: str) -> None:
    config = load(text=text)
    written = tmp_path / "out" / "config.toml"
    written.parent.mkdir()
    config.write(written)
    again = load_config(written)
    assert again.content() == config.content()
    assert again.tables == config.tables.model_copy(update={"simulator": config.simulator.settings()})
    assert fingerprint(again.simulator) == fingerprint(config.simulator)
    assert again.prior.hash() == config.prior.hash()
    steps = tomllib.loads(written.read_text())["training"]["steps"]
    assert steps == config.tables.training.steps, "defaults are filled in"


def test_relative_paths_count_from_the_config(load: Loader, tmp_path: Path) -> None:
    theta = "theta = { log_amplitude = 0.0, slope = -2.0 }"
    config = load((theta, 'file = "data/sky.h5"\n[bank]\npath = "shared/bank"'), text=GAUSSIAN)
    assert config.bank_path(Path("/out")) == tmp_path / "shared/bank"
    written = tmp_path / "out" / "config.toml"
    written.parent.mkdir()
    config.write(written)
    again = load_config(written)
    assert again.bank_path(Path("/out")) == tmp_path / "shared/bank"
    for one in (config, again):
        assert one.content()["observation"]["file"] == str(tmp_path / "data/sky.h5")
    # Not below the config's folder they are written from the root.
    config.write(tmp_path.parent / f"{tmp_path.name}.toml")
    assert load_config(tmp_path.parent / f"{tmp_path.name}.toml").tables.observation.file == tmp_path / "data/sky.h5"


def test_a_simulator_of_ones_own_goes_with_the_config(load: Loader, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    config = load(('"gaussian-field"', '"mine:Mine"\nstrength = 2.0'), text=GAUSSIAN)
    written = tmp_path / "out" / "config.toml"
    written.parent.mkdir()
    config.write(written)
    again = load_config(written)
    assert fingerprint(again.simulator) == fingerprint(config.simulator)
    assert again.simulator.settings()["strength"] == 2.0


THETA = "theta = { F_ESC10 = -1.0, ALPHA_ESC = -0.5, M_TURN = 8.7 }"

#: What is replaced in the example, by what, and all that the user is told.
KNOWN = ", ".join(f'"{kind}"' for kind in KINDS)

WRONG = [
    # misspelt tables and keys
    ("seed = 1", "sede = 1", 'sede: unknown key, did you mean "seed"?'),
    ("[survey]", "[surveys]", '[surveys]: unknown table, did you mean "survey"?'),
    ("[inference]", "[inferense]", '[inferense]: unknown table, did you mean "inference"?'),
    ("cells = 32", "cell = 32", '[simulator] cell: unknown key, did you mean "cells"?'),
    ("parameters =", "parameter =", '[simulator] parameter: unknown key, did you mean "parameters"?'),
    ("F_ESC10 = [", "F_ESC = [", '[prior] F_ESC: unknown parameter, did you mean "F_ESC10"?'),
    ("F_ESC10 = [", "t_STAR = [", "[prior] t_STAR: unknown parameter; there are F_ESC10, ALPHA_ESC, M_TURN"),
    ('kind = "ska-low"', 'kind = "ska-low"\nhour = 1.0', '[survey] hour: unknown key, did you mean "hours"?'),
    ("theta =", "thta =", '[observation] thta: unknown key, did you mean "theta"?'),
    ("rounds =", "round =", '[inference] round: unknown key, did you mean "rounds"?'),
    ("walkers", "walker", '[mcmc] walker: unknown key, did you mean "walkers"?'),
    ("[mcmc]", "[bank]\npaths = 'x'\n[mcmc]", '[bank] paths: unknown key, did you mean "path"?'),
    ("[mcmc]", "[executor]\nworker = 1\n[mcmc]", '[executor] worker: unknown key, did you mean "workers"?'),
    ("[mcmc]", "[training]\nstep = 1\n[mcmc]", '[training] step: unknown key, did you mean "steps"?'),
    (
        "[mcmc]",
        "[flow]\nlayers = 1\n[mcmc]",
        "[flow] layers: unknown key; there are kind, transforms, hidden, options",
    ),
    ("[mcmc]", "[embedding]\nwidht = 1\n[mcmc]", '[embedding] widht: unknown key, did you mean "width"?'),
    (
        "[mcmc]",
        "[power_spectrum]\nbin = 1\n[mcmc]",
        '[power_spectrum] bin: unknown key, did you mean "bins"?',
    ),
    # missing
    (
        'kind = "21cmfast-coeval"',
        "",
        f'[simulator] kind is missing: one of {KNOWN}, or "module:name" of a class or function of your own',
    ),
    (
        "redshifts = [7.0, 8.0, 9.0]",
        "",
        "[simulator] redshifts: is missing; for example redshifts = [7.0, 8.0, 9.0]",
    ),
    ("cells = 32", "", "[simulator] cells: is missing; for example cells = 32"),
    (
        "rounds = [600, 300]",
        "",
        "[inference] rounds: is missing; for example rounds = [600, 300], the simulations of each round",
    ),
    (
        'kind = "ska-low"',
        "hours = 100.0",
        '[survey] kind is missing: one of "none", "white-noise", "ska-low", "spherex", or "module:Class" for your own',
    ),
    (
        'kind = "ska-low"',
        'kind = "white-noise"',
        "[survey] sigma: is missing; for example sigma = 1.0, the noise of a cell in the unit of the image",
    ),
    # unknown kinds
    (
        '"21cmfast-coeval"',
        '"21cmfast"',
        f'[simulator] kind = "21cmfast" is not known: one of {KNOWN}, '
        'or "module:name" of a class or function of your own',
    ),
    (
        '"21cmfast-coeval"',
        '"mine:Mine"',
        '[simulator] kind = "mine:Mine": there is no mine.py in FOLDER or on the path',
    ),
    (
        '"ska-low"',
        '"ska-lo"',
        '[survey] kind = "ska-lo" is not known: one of "none", "white-noise", "ska-low", "spherex", or "module:Class" '
        "for your own",
    ),
    (
        "[mcmc]",
        "[executor]\nkind = 'lsf'\n[mcmc]",
        "[executor] kind: must be 'local', 'dask', 'slurm', 'pbs' or 'mpi' (given: 'lsf')",
    ),
    (
        "[mcmc]",
        "[executor]\nkind = 'slurm'\n[mcmc]",
        '[executor] kind = "slurm" needs workers, the simulations at a time in all jobs',
    ),
    # wrong types
    ("seed = 1", "seed = -1", "seed: must be at least 0 (given: -1)"),
    ("seed = 1", "seed = 4294967296", "seed: must be below 4.29497e+09 (given: 4294967296)"),
    ("seed = 1", "seed = true", "seed: must be a whole number (given: True)"),
    ("F_ESC10 = -1.0,", "F_ESC10 = true,", "[observation] theta.F_ESC10: must be a number (given: True)"),
    ("F_ESC10 = -1.0,", 'F_ESC10 = "-1.0",', "[observation] theta.F_ESC10: must be a number (given: '-1.0')"),
    ("F_ESC10 = -1.0,", "F_ESC10 = -inf,", "[observation] theta.F_ESC10: must be a finite number (given: -inf)"),
    (
        "[mcmc]",
        "[training]\nlearning_rate = inf\n[mcmc]",
        "[training] learning_rate: must be a finite number (given: inf)",
    ),
    ("cells = 32", 'cells = "many"', "[simulator] cells: must be a whole number (given: 'many')"),
    ("cells = 32", "cells = 32.5", "[simulator] cells: must be a whole number (given: 32.5)"),
    ("cells = 32", "cells = 4", "[simulator] cells: must be at least 8 (given: 4)"),
    ("128.0 ", "inf ", "[simulator] box_length: must be a finite number (given: inf)"),
    ("[7.0, 8.0, 9.0]", "7.0", "[simulator] redshifts: must be a list (given: 7.0)"),
    ("[7.0, 8.0, 9.0]", "[7.0, 2.0]", "[simulator] redshifts: must be at least 4 (given: 2.0)"),
    ("[600, 300]", "600", "[inference] rounds: must be a list (given: 600)"),
    ("[inference]", "[inference]\nsamples = 9", "[inference] samples: must be at least 10 (given: 9)"),
    ("[600, 300]", "[]", "[inference] rounds: must hold at least 1 (given: [])"),
    ("[600, 300]", "[600, 0]", "[inference] rounds: must be above 0 (given: 0)"),
    ("[mcmc]", "[bank]\npath = 3\n[mcmc]", "[bank] path: must be a path in quotes (given: 3)"),
    (
        'kind = "ska-low"',
        'kind = "ska-low"\nresidual = { amplitud = 3.0 }',
        '[survey] residual.amplitud: unknown key, did you mean "amplitude"?',
    ),
    (
        'kind = "ska-low"',
        'kind = "ska-low"\nsefd = "aavs3"',
        '[survey] sefd: "aavs3" is not known: one of "aavs2", "818", "sky", a value in Jy, or [[MHz, Jy], ...]',
    ),
    (
        'kind = "ska-low"',
        'kind = "ska-low"\nlayout = "HRA"',
        '[survey]: layout = "HRA" is not known: one of "AA4", "AA*", "HERA", "LOFAR", "MWA", or a file such as '
        '"antennas.csv"',
    ),
    ('kind = "ska-low"', 'kind = "ska-low"\nsefd = -3.0', "[survey] sefd: must be above 0 (given: -3.0)"),
    (
        'kind = "ska-low"',
        'kind = "ska-low"\nmin_baseline = 3000.0',
        "[survey]: min_baseline is 3000 m: it must be below max_baseline, 2000 m",
    ),
    # the prior
    (
        "[-2.0, 0.0]",
        "[0.0, -2.0]",
        "[prior] F_ESC10 = [0.0, -2.0]: must be [low, high], finite, low below high",
    ),
    (
        "[-2.0, 0.0]",
        "[nan, 0.0]",
        "[prior] F_ESC10 = [nan, 0.0]: must be [low, high], finite, low below high",
    ),
    (
        "[-2.0, 0.0]",
        "[-inf, 0.0]",
        "[prior] F_ESC10 = [-inf, 0.0]: must be [low, high], finite, low below high",
    ),
    ("[-2.0, 0.0]", "[-2.0]", f"[prior] F_ESC10: {FORMS}"),
    ("[-2.0, 0.0]", '"wide"', f"[prior] F_ESC10: {FORMS}"),
    ("[-2.0, 0.0]", "[-9.0, 0.0]", "[prior] F_ESC10 = -9 is outside -4 to 0, where 21cmFAST can be trusted"),
    # the mock
    (
        "F_ESC10 = -1.0",
        "F_ESC = -1.0",
        '[observation] theta.F_ESC: unknown parameter, did you mean "F_ESC10"?',
    ),
    (
        "F_ESC10 = -1.0, ",
        "",
        "[observation] theta lacks F_ESC10; it needs F_ESC10, ALPHA_ESC, M_TURN",
    ),
    ("F_ESC10 = -1.0", "F_ESC10 = -2.5", "[observation] theta.F_ESC10 = -2.5: must lie in the prior [-2, 0]"),
    ("F_ESC10 = -1.0", "F_ESC10 = nan", "[observation] theta.F_ESC10: must be a finite number (given: nan)"),
    ("F_ESC10 = -1.0", "F_ESC10 = 'x'", "[observation] theta.F_ESC10: must be a number (given: 'x')"),
    (
        THETA,
        "",
        '[observation] needs one of theta = {...}, file = "..." and clean = "..."',
    ),
    (
        THETA,
        THETA + '\nfile = "observed.h5"',
        '[observation] needs one of theta = {...}, file = "..." and clean = "..."',
    ),
    # walkers
    (
        "walkers = 32",
        "walkers = 4",
        "[mcmc] walkers = 4: emcee needs at least twice the number of parameters, 6",
    ),
    ("walkers = 32", "walkers = 33", "[mcmc] walkers: must be a multiple of 2 (given: 33)"),
    # not TOML
    ("seed = 1", "seed = ", "not valid TOML: Invalid value (at line 2, column 8)"),
    ("seed = 1", "seed = 1\nseed = 2", "not valid TOML: Cannot overwrite a value (at line 3, column 9)"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG, ids=[f"{i}" for i in range(len(WRONG))])
def test_what_is_wrong_is_said_in_one_line(load: Loader, tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load((old, new))
    assert str(caught.value) == f"{tmp_path / 'run.toml'}: {message.replace('FOLDER', str(tmp_path))}"


@pytest.mark.parametrize("table", ["simulator", "observation", "inference"])
def test_a_required_table_is_missing(load: Loader, table: str) -> None:
    lines, _, _ = GAUSSIAN.partition(f"[{table}]")
    rest = GAUSSIAN.removeprefix(lines).partition("\n[")[2]
    with pytest.raises(InputError, match=rf"^\S+run\.toml: \[{table}\]: is missing; for example \S+ = ") as caught:
        load(text=lines + (f"[{rest}" if rest else ""))
    assert "\n" not in str(caught.value)


def test_t_star_of_zero_is_refused(load: Loader) -> None:
    changes = (
        ('"F_ESC10", "ALPHA_ESC", "M_TURN"', '"t_STAR"'),
        ("F_ESC10 = [-2.0, 0.0]", "t_STAR = [0.0, 1.0]"),
        ("F_ESC10 = -1.0, ALPHA_ESC = -0.5, M_TURN = 8.7", "t_STAR = 0.5"),
    )
    with pytest.raises(InputError, match=r"run\.toml: \[prior\] t_STAR = 0 is outside 0\.001 to 1, where 21cmFAST"):
        load(*changes)
    load(*changes[:1], ("F_ESC10 = [-2.0, 0.0]", "t_STAR = [0.01, 1.0]"), changes[2])


def test_ska_low_observes_no_gaussian_field(load: Loader) -> None:
    with pytest.raises(InputError) as caught:
        load(('"white-noise"\nsigma = 0.3', '"ska-low"'), text=GAUSSIAN)
    assert '[survey] kind = "ska-low" observes 3D cubes in mK' in str(caught.value)
    assert "'field' is in no unit" in str(caught.value)


def test_keys_of_a_users_simulator(load: Loader, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(MINE)
    with pytest.raises(InputError, match=r'\[simulator\] strenght: unknown key, did you mean "strength"\?$'):
        load(('"gaussian-field"', '"own:Mine"\nstrenght = 2.0'), text=GAUSSIAN)
    (tmp_path / "bad.py").write_text("raise RuntimeError('no licence')")
    with pytest.raises(InputError, match=r'\[simulator\] kind = "bad:Mine": importing "bad" failed: RuntimeError'):
        load(('"gaussian-field"', '"bad:Mine"'), text=GAUSSIAN)


def test_an_unknown_parameter_of_21cmfast(load: Loader) -> None:
    with pytest.raises(InputError) as caught:
        load(('"M_TURN"]', '"M_TRUN"]'))
    assert '[simulator] parameters: "M_TRUN" is not a parameter. Did you mean "M_TURN"?' in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_mistakes_are_three_lines_and_a_count(load: Loader) -> None:
    keys = ("steps = 0", "batch_size = 1.5", "ensemble = 'x'", "validation_fraction = 1.0", "momentum = 3")
    wrong = "\n".join(["[training]", *keys, "[mcmc]"])
    with pytest.raises(InputError) as caught:
        load(("[mcmc]", wrong))
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "[training] momentum: unknown key" in lines[0]
    assert lines[3].endswith("run.toml: and 2 more")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.toml: cannot be read \(No such file or directory\)"):
        load_config(tmp_path / "nothing.toml")
    with pytest.raises(InputError, match="is a folder; give the config in it"):
        load_config(tmp_path)
    (tmp_path / "latin.toml").write_bytes("# k\u00f6nnte".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.toml: not valid TOML"):
        load_config(tmp_path / "latin.toml")


def test_a_config_says_what_it_is_and_a_run_needs_one(load: Loader, tmp_path: Path) -> None:
    made = load()
    assert repr(made) == f"Config({made.file}: 21cmfast-coeval, F_ESC10, ALPHA_ESC, M_TURN)"
    with pytest.raises(InputError, match=r"Run\(load_config\('my.toml'\), ...\)"):
        Run("my.toml", tmp_path)  # type: ignore[arg-type]
    for out in ("", None):
        with pytest.raises(InputError, match=f"Run needs a folder as out, not {out!r}"):
            Run(made, out)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="load_config takes a TOML file, or its content as a dict, not None"):
        load_config(None)  # type: ignore[arg-type]


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = load_config(tiny(tmp_path, bank={"path": "~/banks/mine"}, observation={"theta": None, "file": "~/sky.npy"}))
    assert made.bank_path(tmp_path / "run") == tmp_path / "home/banks/mine"
    assert made.folder / str(made.tables.observation.file) == tmp_path / "home/sky.npy"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"k_min": 5.0}, "no bins between k = 5 and 4.44"),
        ({"k_min": 1.0, "k_max": 1.05}, "no mode of the cube lies between k = 1 and 1.05 1/Mpc"),
    ],
)
def test_bins_that_hold_no_mode_at_all_are_refused(tmp_path: Path, limits: dict[str, float], message: str) -> None:
    """Before anything is simulated, and not when the network or the chain asks for them."""
    with pytest.raises(InputError, match=re.escape(f"run.toml: [power_spectrum] {message}")):
        load_config(tiny(tmp_path, power_spectrum=limits))
    load_config(tiny(tmp_path, power_spectrum={"k_min": 1.0, "k_max": 2.0}))


def test_chunks_are_those_of_a_light_cone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape("run.toml: [power_spectrum] chunks = 2: only a light-cone has")):
        load_config(tiny(tmp_path, power_spectrum={"chunks": 2}))


def test_a_k_max_beyond_the_corner_is_said(tmp_path: Path) -> None:
    (note,) = load_config(tiny(tmp_path, power_spectrum={"k_max": 50.0})).notes
    assert "run.toml: [power_spectrum] k_max = 50: the cube has no mode above 4.443 1/Mpc. " in note
    assert "2 of 3 bins are left. Leave k_max out to take all modes" in note
    assert load_config(tiny(tmp_path, power_spectrum={"k_max": 4.45})).notes == ()


def test_a_k_min_below_the_first_mode_is_said(tmp_path: Path) -> None:
    """Bins that hold no mode are merged: with a very low one a single bin was left, in silence."""
    first = 2 * math.pi / load_config(tiny(tmp_path)).observable.box_length[0]
    (note,) = load_config(tiny(tmp_path, power_spectrum={"k_min": 1e-6})).notes
    assert f"[power_spectrum] k_min = 1e-06: the cube has no mode below {first:.4g} 1/Mpc. " in note
    assert "1 of 3 bins are left. Leave k_min out to begin with the first mode" in note
    assert load_config(tiny(tmp_path, power_spectrum={"k_min": 0.999 * first})).notes == ()


def test_an_embedding_that_reads_nothing_is_refused(tmp_path: Path) -> None:
    for table in ({"summaries": []}, {"power_spectrum": False}):
        with pytest.raises(InputError, match=r"\[embedding\] ?:? convolution = false leaves nothing to read"):
            load_config(tiny(tmp_path, embedding={"convolution": False} | table))


def test_a_misspelt_choice_is_told_its_neighbour(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\[training\] effort: 'quik' is not known, did you mean \"quick\"\?"):
        load_config(tiny(tmp_path, training={"effort": "quik"}))
    with pytest.raises(InputError, match=r"\[training\] effort: must be 'quick', .* \(given: 'none'\)"):
        load_config(tiny(tmp_path, training={"effort": "none"}))
