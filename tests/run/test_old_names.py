"""Old names of tables, keys, methods and commands: they work, one line tells the new one, and old run folders go on."""

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from eorinfer.contest.method import ContestSetup
from eorinfer.core.errors import InputError
from eorinfer.core.progress import Lines
from eorinfer.run import Run
from eorinfer.run.config import check_config, load_config
from eorinfer.run.folder import refuse_other_config
from eorinfer.run.received import load_received
from eorinfer.settings.imageflow import GONE
from tests.run.test_image_flow import FIELD
from tests.runs import CONFIG, call, config

OLD: dict[str, Any] = {
    "field": {"knots": 6, "discriminative_steps": 400, "candidates": 4},
    "inference": {"method": "field-flow", "rounds": [48]},
    "validation": {"field_truths": 30},
    "contest": {"methods": ["field-flow", "npe-both"], "reference": "field-flow", "baseline": "npe-both"}
    | {"field_truths": 25},
}
NEW: dict[str, Any] = {
    "image_flow": {"knots": 6},
    "inference": {"method": "image-flow", "rounds": [48]},
    "validation": {"image_flow_truths": 30},
    "contest": {"methods": ["image-flow", "npe-both"], "reference": "image-flow", "baseline": "npe-both"}
    | {"image_flow_truths": 25},
}


def test_an_old_config_is_the_same_as_one_with_new_names(tmp_path: Path) -> None:
    old, new = (load_config(config(tmp_path, f"{name}.toml", **t)) for name, t in (("old", OLD), ("new", NEW)))
    assert old.content() == new.content()
    assert new.notes == ()
    said = [note.removeprefix(f"{old.file}: ") for note in old.notes]
    assert said == [
        "[field] is now called [image_flow]; the old name still works",
        "[validation] field_truths is now called [validation] image_flow_truths; the old name still works",
        "[contest] field_truths is now called [contest] image_flow_truths; the old name still works",
        '[inference] method: "field-flow" is now called "image-flow"; the old name still works',
        '[contest] methods: "field-flow" is now called "image-flow"; the old name still works',
        '[contest] reference: "field-flow" is now called "image-flow"; the old name still works',
        "[image_flow] discriminative_steps: there is no such stage any more; the key is ignored",
    ]


def test_a_folder_begun_with_keys_that_are_gone_goes_on(tmp_path: Path) -> None:
    begun = load_config(config(tmp_path, image_flow={"knots": 6}))
    content = begun.content()
    content["image_flow"] |= GONE
    (tmp_path / "run/field").mkdir(parents=True)
    (tmp_path / "run/field/field.json").write_text("{}")
    (tmp_path / "run/config.toml").write_bytes(tomli_w.dumps(content).encode())
    refuse_other_config(begun, tmp_path / "run")
    with pytest.raises(InputError, match="knots = 7, but "):
        refuse_other_config(load_config(config(tmp_path, image_flow={"knots": 7})), tmp_path / "run")


def test_both_names_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_config(config(tmp_path, field={"knots": 6}, image_flow={"knots": 8}))
    assert str(caught.value).endswith("[field] is the old name of [image_flow]: give one of the two")
    with pytest.raises(InputError, match=r"field_truths is the old name of \[validation\] image_flow_truths"):
        load_config(config(tmp_path, validation={"field_truths": 30, "image_flow_truths": 40}))


def test_an_error_under_an_old_name_tells_the_new_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_config(config(tmp_path, field={"nots": 6}))
    note, error = str(caught.value).splitlines()
    assert "[field] is now called [image_flow]" in note
    assert '[image_flow] nots: unknown key, did you mean "knots"?' in error


def test_what_is_no_table_is_left_to_the_check(tmp_path: Path) -> None:
    for table in ("validation", "contest", "inference"):
        with pytest.raises(InputError, match=rf"{table}\b.*must be a table"):
            check_config(tmp_path / "run.toml", CONFIG | {table: 3})


def test_keys_and_folders_of_a_contest_keep_their_old_names(tmp_path: Path) -> None:
    run = Run(load_config(config(tmp_path, **NEW)), tmp_path / "run")
    setup = ContestSetup(run.context, run.bank.rows(), "a key", lambda: pytest.fail("not needed"))
    assert setup.folder("image-flow") == tmp_path / "run/contest/field-flow"
    # This hash was written by the version that called the method "field-flow".
    assert setup.key_of("image-flow", field=FIELD) == "fe8a9d5f4c97e07d"


@pytest.mark.job
def test_an_old_run_folder_goes_on_under_its_old_and_new_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = config(tmp_path, "old.toml", field=FIELD, inference={"method": "field-flow", "rounds": [48]})
    new = config(tmp_path, "new.toml", image_flow=FIELD, inference={"method": "image-flow", "rounds": [48]})
    out = tmp_path / "run"
    assert call("field", "train", old, "--out", out) == 0
    said = capsys.readouterr()
    assert said.err == "eorinfer: `field` is now called `image-flow`; the old name still works\n"
    assert f"{old}: [field] is now called [image_flow]; the old name still works\n" in said.out
    # Older versions wrote the old names into the run folder.
    written = load_config(out / "config.toml").content()
    written["field"] = written.pop("image_flow")
    written["inference"]["method"] = "field-flow"
    (out / "config.toml").write_text(tomli_w.dumps(written))
    trained = (out / "field" / "field.json").stat().st_mtime_ns
    for path in (new, old):
        assert call("image-flow", "train", path, "--out", out) == 0
        assert (out / "field" / "field.json").stat().st_mtime_ns == trained
    other = config(tmp_path, "other.toml", field=FIELD | {"knots": 7})
    assert call("field", "train", other, "--out", out) == 2
    assert "[image_flow] knots = 7, but" in capsys.readouterr().err


def test_the_old_command_of_a_contest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("benchmark", config(tmp_path, contest={"methods": ["npe"]}), "--out", tmp_path / "run") == 2
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "eorinfer: `benchmark` is now called `contest`; the old name still works"
    assert "[contest] methods" in others[0]


COEVAL: dict[str, Any] = {
    "simulator": {"kind": "21cmfast-coeval", "redshifts": [8.0], "cells": 16, "box_length": 128.0}
    | {"parameters": ["F_ESC10", "ALPHA_ESC"]},
    "survey": {"kind": "ska-low", "hours": 1000.0},
    "observation": {"theta": {"F_ESC10": -1.0, "ALPHA_ESC": -0.5}},
    "inference": {"rounds": [10]},
}


def test_a_run_from_before_aavs2_goes_on_with_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its config names no table: for it that is the older one, whatever the default is now."""
    path, out = tmp_path / "run.toml", tmp_path / "out"
    assert Run(check_config(path, COEVAL), out, Lines()).tables.survey.sefd == "aavs2"  # type: ignore[union-attr]
    written = (out / "config.toml").read_text()
    assert written.count('sefd = "aavs2"\n') == 1
    (out / "config.toml").write_text(written.replace('sefd = "aavs2"\n', ""))
    capsys.readouterr()
    for _ in range(2):
        again = Run(check_config(path, COEVAL), out, Lines())
        assert again.tables.survey.sefd == "818"  # type: ignore[union-attr]
        assert "sefd" not in again.config.key_of("survey")["survey"]
        assert f'[survey] sefd is not given; {out} was begun with "818" and keeps it' in capsys.readouterr().out
        assert 'sefd = "818"\n' in (out / "config.toml").read_text()
    with pytest.raises(InputError, match=r"\[survey\] sefd = 'aavs2', but .* holds a run with sefd = '818'"):
        Run(check_config(path, COEVAL | {"survey": {"kind": "ska-low", "sefd": "aavs2"}}), out)


def test_a_received_run_from_before_aavs2_has_its_table(tmp_path: Path) -> None:
    made = Run(check_config(tmp_path / "run.toml", COEVAL), tmp_path)
    assert load_received(tmp_path, None).tables.survey == made.tables.survey
    text = (tmp_path / "config.toml").read_text()
    (tmp_path / "config.toml").write_text(text.replace('sefd = "aavs2"\n', ""))
    assert load_received(tmp_path, None).tables.survey.sefd == "818"  # type: ignore[union-attr]
