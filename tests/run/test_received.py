"""A run folder from somebody else: its config is data, and nothing that it names is run."""

from pathlib import Path

import pytest

from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from eorinfer.run import Run
from eorinfer.run.received import load_received
from simulators import build
from tests.runs import CONFIG, call, config

#: Leaves a trace where it is imported.
EVIL = """
from pathlib import Path
from simulators import GaussianField
Path(__file__).with_name("trace").touch()
class E(GaussianField): pass
def f(*arguments, **options): pass
"""


def received(folder: Path, **tables: object) -> Path:
    """Make the folder of a run with a bank, as somebody else may send it."""
    path = config(folder, "config.toml", **tables)
    (folder / "evil.py").write_text(EVIL)
    Bank.create(folder / "bank", build(CONFIG["simulator"]))
    return path


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ({"simulator": {"kind": "evil:E"}}, "[simulator] kind"),
        ({"survey": {"kind": "evil:E"}}, "[survey] kind"),
        ({"embedding": {"network": "evil:E"}}, "[embedding] network"),
        ({"embedding": {"summaries": ["power", "evil:f"]}}, "[embedding] summaries"),
        ({"flow": {"kind": "evil:f"}}, "[flow] kind"),
        ({"contest": {"methods": ["evil:E"]}}, "[contest] methods"),
    ],
)
def test_no_module_beside_it_is_imported(tmp_path: Path, tables: dict[str, object], key: str) -> None:
    path = received(tmp_path / "run", **tables)
    with pytest.raises(InputError) as error:
        load_received(tmp_path / "run", None)
    assert str(error.value).startswith(f'{path}: {key}: "evil:')
    assert "is not run; if you trust it, name the folder of its module: --modules FOLDER" in str(error.value)
    assert not (tmp_path / "run" / "trace").exists()


def test_with_the_folder_of_its_modules_named_it_is(tmp_path: Path) -> None:
    received(tmp_path / "run", simulator={"kind": "evil:E"})
    assert load_received(tmp_path / "run", tmp_path / "run").simulator.kind == "evil:E"
    assert (tmp_path / "run" / "trace").exists()


def test_its_executor_is_not_heeded_and_its_config_not_written(tmp_path: Path) -> None:
    path = received(tmp_path / "run", executor={"kind": "dask", "workers": None, "address": "tcp://evil:8786"})
    before = path.read_text()
    loaded = load_received(tmp_path / "run", None)
    assert loaded.tables.executor.kind == "local"
    Run(loaded, tmp_path / "run")
    assert path.read_text() == before


def test_a_bank_elsewhere_is_not_made(tmp_path: Path) -> None:
    received(tmp_path / "run", bank={"path": str(tmp_path / "elsewhere")})
    with pytest.raises(InputError, match="no bank in"):
        load_received(tmp_path / "run", None)
    assert not (tmp_path / "elsewhere").exists()


def test_sampling_at_given_conditions_reads_no_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder is no image flow: what is asked is that nothing is imported on the way to saying so."""
    received(tmp_path / "run", simulator={"kind": "evil:E"})
    (tmp_path / "run" / "field").mkdir()
    for command in ("sample", "beyond-power"):
        assert call("image-flow", command, tmp_path / "run/field", "--out", tmp_path / "out") == 2
        assert "no image flow here" in capsys.readouterr().err
    assert not (tmp_path / "run" / "trace").exists()
