"""Check that a run folder belongs to its config."""

import os
import re
from pathlib import Path
from typing import Any, get_args

from eorinfer.core.errors import InputError
from eorinfer.core.files import read_json
from eorinfer.core.toml import read_toml
from eorinfer.run.config import Config, with_paths
from eorinfer.settings.old_names import with_new_names, with_old_defaults
from eorinfer.settings.survey import SefdName, SkaLow
from simulators.files import files_of, with_files

#: Tables and keys of a config that may change between two calls with the same folder.
FREE = (
    *("executor", "mcmc", "validation", "contest"),
    *("inference.method", "inference.samples", "inference.predictive", "inference.stop_at"),
    "image_flow.weighing",
)
#: Tables that may change until the first file or folder is there that depends on them.
FREE_BEFORE = {
    "observation": "observation.h5",
    "simulator.unit": "observation.h5",
    "inference.targets": "observation.h5",
    "preprocessing": "rounds/01/posterior",
    "embedding": "rounds/01/posterior",
    "flow": "rounds/01/posterior",
    "training": "rounds/01/posterior",
    "image_flow": "field/field.json",
    "separation": "separator",
}
#: Labels and units of imported parameters: texts that change no number.
_TEXT = re.compile(r"simulator\.ranges\..+\.(label|unit)")

#: Characters of a value that are shown.
LONGEST = 80


def refuse_other_config(config: Config, out: Path) -> None:
    """Compare with the config that `out` was begun with, if it was.

    Raises
    ------
    InputError
        If a key differs that the folder's content depends on; more rounds may be added, and files and bank may have
        moved. Or if the bank is gone that it was begun with.
    """
    content = _begun_with(out)
    if content is None:
        if _used_again(out):
            raise InputError(
                f"{config.file}: {out} holds the posterior of another observation, by `eorinfer infer --posterior`; "
                "give another --out"
            )
        return
    content = with_paths(content, lambda path: (out / path).resolve())
    files = files_of(config.simulator)
    content["simulator"] = with_files(content["simulator"], files, lambda path: os.path.abspath(out.resolve() / path))
    before = _flat(content)
    _refuse_lost_bank(config, out, before.get("bank.path"))
    now = _flat(config.content())
    free = (*FREE, *(table for table, file in FREE_BEFORE.items() if not (out / file).exists()))
    # What is simulated is named before what follows from it.
    for key in sorted(
        {*before, *now}, key=lambda key: (key != "simulator.kind", key.partition(".")[0] != "simulator", key)
    ):
        old, new = before.get(key), now.get(key)
        if old == new or key.startswith(free) or _TEXT.fullmatch(key) or _moved(key, old, new):
            continue
        if key == "inference.rounds" and isinstance(old, list) and isinstance(new, list) and new[: len(old)] == old:
            continue
        raise InputError(
            f"{config.file}: {_named(key)} {_shown(new)}, but {out} holds a run with {key.rpartition('.')[2]} "
            f"{_shown(old)}; give another --out (and [bank] path to share the simulations)"
        )


def _moved(key: str, old: object, new: object) -> bool:
    """Tell whether paths name what has been moved: gone from where it was, and elsewhere under the same name.

    A bank, which says itself what it holds, may have another name.
    """
    before, now = (one if isinstance(one, list) else [one] for one in (old, new))
    pairs = [(Path(a), Path(b)) for a, b in zip(before, now, strict=False) if isinstance(a, str) and isinstance(b, str)]

    def same(a: Path, b: Path) -> bool:
        return (key == "bank.path" or a.name == b.name) and b.exists() and not a.exists()

    return len(pairs) == len(before) == len(now) and all(
        a == b or (a.is_absolute() and b.is_absolute() and same(a, b)) for a, b in pairs
    )


def _refuse_lost_bank(config: Config, out: Path, before: str | None) -> None:
    """Refuse to make a bank anew where the one is gone, of a `[bank] path`, whose simulations a run was begun with."""
    path = config.bank_path(out)
    begun = any(out.glob("rounds/*/round.json")) or (out / "separation.json").exists()
    if begun and before is not None and not Path(before).exists() and not path.exists():
        raise InputError(
            f"{config.file}: [bank] path = {str(path)!r} is not there, and {out} has its simulations in it; if it was "
            "moved, say where to. To simulate all of it anew, make that folder"
        )


def refuse_run(out: Path) -> None:
    """Refuse a folder that holds a run, whose observation and chains would be replaced by another's.

    Raises
    ------
    InputError
        If it does.
    """
    if found := next((name for name in ("config.toml", "bank", "rounds") if (out / name).exists()), None):
        raise InputError(
            f"{out}: holds a run ({found}), whose observation and posterior would be replaced; give another --out"
        )


def _used_again(out: Path) -> bool:
    """Tell whether a folder holds what a trained posterior says of another observation."""
    path = out / "summary.json"
    return path.exists() and "posterior" in read_json(path)


def as_begun(config: Config, out: Path) -> Config:
    """Keep the table of SEFD that a folder was begun with where the config names none: its default has changed.

    Raises
    ------
    InputError
        If the folder's config cannot be read.
    """
    survey = config.tables.survey
    if not isinstance(survey, SkaLow) or "sefd" in survey.model_fields_set:
        return config
    before = ((_begun_with(out) or {}).get("survey") or {}).get("sefd", survey.sefd)
    if before not in get_args(SefdName) or before == survey.sefd:
        return config
    note = f'{config.file}: [survey] sefd is not given; {out} was begun with "{before}" and keeps it'
    return config.with_survey(survey.model_copy(update={"sefd": before}), note)


def _begun_with(out: Path) -> dict[str, Any] | None:
    """Read the config that a folder was begun with; None in a new folder."""
    path = out / "config.toml"
    if not path.exists():
        return None
    try:
        content, _ = with_new_names(read_toml(path))
    except InputError as error:
        raise InputError(f"{error}; it is the config of this run: mend it, or give another --out") from error
    except ValueError as error:
        raise InputError(f"{path}: the config of this run cannot be read ({error}); give another --out") from error
    return with_old_defaults(content)


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def _named(key: str) -> str:
    """Name a flat key as errors of the config do."""
    table, dot, rest = key.partition(".")
    return f"[{table}] {rest}" if dot else key


def _shown(value: object) -> str:
    if value is None:
        return "not given"
    text = repr(value)
    return f"= {text if len(text) <= LONGEST else text[:LONGEST] + '...'}"
