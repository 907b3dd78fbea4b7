"""Training and use of a separator, from a config and a folder."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import simulators
from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.campaign.plans import Used, plan_round, planned_rows, plans_of, read_used, use_of
from eorinfer.core.errors import InputError, naming
from eorinfer.core.files import make_folder, read_json, write_json
from eorinfer.core.own import own_key
from eorinfer.core.progress import Progress, Silent
from eorinfer.core.seeds import SeparationStream, run_seed
from eorinfer.cubes.fits import sky_header_of, write_images
from eorinfer.cubes.formats import format_of
from eorinfer.cubes.observation import Observation
from eorinfer.run.config import Config
from eorinfer.run.folder import as_begun, refuse_other_config
from eorinfer.run.simulations import Simulations
from eorinfer.settings.survey import SphereX, survey_key
from simulators.base import fingerprint_of

if TYPE_CHECKING:
    from eorinfer.separation.model import Separator, SeparatorSpec


def apply(model: Path, file: Path, out: Path, draws: int, seed: int) -> tuple[str, ...]:
    """Separate an observed map: ``observed`` and each line by its name, with the draws and their spread beside it.

    Parameters are those of the command ``eorinfer separate apply``; returns what was assumed of the file.

    Raises
    ------
    InputError
        If unit, pixels or axes are not those of training, or the files cannot be read or written.
    """
    from eorinfer.separation.apply import separate
    from eorinfer.separation.model import Separator

    if out.suffix.lower() not in (".h5", ".hdf5", ".fits"):
        raise InputError(f"{out}: separated maps are .h5, .hdf5 or .fits files")
    if out.exists() and file.exists() and out.samefile(file):
        raise InputError(f"{out}: is the observed map itself, which would be lost; give another --out")
    separator = Separator.load(model)
    observation = Observation.open(file, separator.spec.observable)
    notes = observation.notes
    _refuse_masked(observation, separator.spec, file)
    observable = separator.observable_of(observation.values.shape, str(file))
    if format_of(file) == ".npy":
        observation = Observation.from_observable(observable, observation.values)
    observation.check(observable, str(file))
    made = separate(separator, observation.values, draws, seed)
    images = dict(zip(separator.spec.lines, made.lines, strict=True))
    if made.spread is not None:
        images |= {f"{name}_spread": x for name, x in zip(separator.spec.lines, made.spread, strict=True)}
        images |= {f"{name}_draws": made.draws[:, i] for i, name in enumerate(separator.spec.lines)}
    make_folder(out.parent)
    if out.suffix.lower() == ".fits":
        sky = sky_header_of(file, observable) if format_of(file) == ".fits" else None
        write_images(out, observable, observation.values, images, sky)
    else:
        observation.write(out, images)
    return tuple(notes)


def _refuse_masked(observation: Observation, spec: "SeparatorSpec", file: Path) -> None:
    """Refuse NaN, and masked pixels that training had not; say what the networks have seen in their place."""
    survey, values = spec.survey, observation.values
    seen = isinstance(survey, SphereX) and (survey.stars or survey.dead_pixels)
    nan, masked = int(np.isnan(values).sum()), 0 if observation.mask is None or seen else int(observation.mask.sum())
    if not nan + masked:
        return
    what = (
        "write 0 there, as masked pixels have in its training"
        if seen
        else "its training had no masked pixels; fill these, or train with [survey] stars or dead_pixels and write 0"
    )
    kind = f"{nan} of {values.size} pixels are NaN" if nan else f"{masked} of {values.size} pixels are masked"
    raise InputError(f"{file}: {kind}, and a separator needs all of them: {what}")


def refuse_few_realisations(config: Config) -> None:
    """Refuse a training on fewer than three realisations, before a folder is begun for it.

    Raises
    ------
    InputError
        If there are fewer.
    """
    wanted, each = config.tables.separation.simulations, config.simulator.rows_per_realisation
    if (realisations := -(-wanted // each)) < 3:
        raise InputError(
            f"{config.file}: [separation] simulations = {wanted}: {realisations} realisation(s) of {each} ([simulator] "
            "rows_per_realisation); at least three are needed, one each for training, validation and test"
        )


class Separation:
    """A folder with a bank of mocks and the separator that is trained on them; what is done is found there.

    Parameters
    ----------
    config
        Checked for a separation.
    out
        Folder; made if it is not there.
    progress
        Receives lines and bars.

    Raises
    ------
    InputError
        If the folder cannot be written or holds something else, or the simulator has no such lines or sizes.
    """

    def __init__(self, config: Config, out: Path, progress: Progress | None = None) -> None:
        from eorinfer.separation.data import find_targets, share_channels
        from eorinfer.separation.model import SeparatorSpec

        config = as_begun(config, Path(out))
        self.config, self.progress = config, progress or Silent()
        self.settings = config.tables.separation
        with naming(f"{config.file}: [separation] "):
            targets = find_targets(config.simulator.observables, self.settings.targets)
            self.spec = SeparatorSpec(config.observable, targets, config.tables.survey, self.settings)
            self.spec.strides  # noqa: B018, so that sizes are refused before anything is simulated
        if self.settings.mix and share_channels(config.observable):
            raise InputError(
                f"{config.file}: [separation] mix = true: the cubes share channels, whose lines cannot be mixed in one "
                "cube and not in the other; mix = false, or fewer [simulator] channels"
            )
        self.out = make_folder(Path(out))
        refuse_other_config(config, self.out)
        self.bank = Bank.create(config.bank_path(self.out), config.simulator)
        self.simulations = Simulations(config, self.bank, self.progress)
        config.write(self.out / "config.toml")

    def simulate(self) -> Rows:
        """Fill the bank with what the config asks for; its valid rows."""
        used, planned = self._used(), self.settings.simulations
        lacking = self.simulations.lacking(used)
        self.progress.line(self.simulations.preflight(f"{planned} simulations", planned, planned - lacking))
        self.simulations.fill(used, "for the separation")
        return planned_rows(self.bank, used)[:planned].ok  # older files may have some rows too many

    def train(self) -> "Separator":
        """Train the separator, from its last checkpoint on, or load it where it is kept.

        Raises
        ------
        InputError
            See `refuse_few_realisations`.
        """
        from eorinfer.separation.data import seeds_of, split
        from eorinfer.separation.model import Separator
        from eorinfer.separation.training import train
        from eorinfer.survey import build_survey
        from eorinfer.training.kept import load_or_train

        refuse_few_realisations(self.config)
        rows = self.simulate()
        splits = split(rows, self.settings.validation_fraction, self.settings.test_fraction)
        facts = {
            "simulator": self.config.simulator.settings(),
            "fingerprint": simulators.fingerprint(self.config.simulator),
            "seeds": {name: seeds_of(getattr(splits, name)) for name in ("training", "validation", "test")},
        }

        # What was begun before means and flows had networks of their own goes on with those that it has.
        spec, key = replace(self.spec, facts=facts), self._key(rows)
        if self.settings.kind != "cgan":
            spec = replace(spec, earlier=self._begun(key))
            key = key if spec.earlier else fingerprint_of({"key": key, "network": "subpixel"})

        def train_on(checkpoints: Path) -> Separator:
            return train(
                spec,
                self.bank,
                splits,
                build_survey(self.config.tables.survey, self.config.observable),
                folder=checkpoints,
                seed=run_seed(self.config.tables.seed, SeparationStream.TRAINING),
                progress=self.progress,
            )

        return load_or_train(Separator, self.out / "separator", key, train_on)

    def _begun(self, key: str) -> bool:
        """Tell whether a separator was trained under this key, or begun to be."""
        from eorinfer.separation.model import Separator

        folder, kind = self.out / "separator", Separator.bundle
        kept = kind.is_in(folder) and kind.facts(folder).get("key") == key
        return kept or (self.out / f"checkpoints-{key}").exists()

    def _used(self) -> list[Used]:
        """Choose the rows to train on; they stay the same, whatever others add to a shared bank."""
        n, path = self.settings.simulations, self.out / "separation.json"
        if path.exists():
            content = read_json(path)
            used = read_used(self.bank, content["plans"])
            if used and content.get("simulations", sum(of.first for of in used)) == n:
                return used
        proposal = fingerprint_of({"separation": self.config.prior.hash()})
        # Number 0: no round of any run trains on these rows.
        plans = plans_of(self.bank, 0, proposal)
        if (planned := sum(map(len, plans))) < n:
            seed = run_seed(self.config.tables.seed, SeparationStream.MAPS)
            theta = self.config.prior.sample(n - planned, np.random.default_rng([seed, planned]))
            more = plan_round(0, proposal, theta, self.config.simulator, seed, first_realisation=planned)
            plans.append(self.bank.add(more))
        used = use_of(self.bank, plans, n)
        write_json(path, {"simulations": n, "plans": [of.content() for of in used]})
        return used

    def _key(self, rows: Rows) -> str:
        """Hash of all that a training depends on."""
        tables = self.config.content()
        used = ("seed", "separation")
        return fingerprint_of(
            {name: tables[name] for name in used}
            | {"simulator": self.config.simulator_key(self.bank.description["simulator"])}
            | {"survey": survey_key(self.config.tables.survey)}
            | {"bank": self.bank.fingerprint, "theta": rows.theta.tolist(), "seeds": rows.seed.tolist()}
            | own_key(tables, self.config.modules, ("survey",))
        )
