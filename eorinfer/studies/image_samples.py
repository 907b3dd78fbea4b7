"""Images of a trained image flow as files: at given conditions, beside real ones of the run that it was trained in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.campaign.plans import Used, plan_round, planned_rows
from eorinfer.core.errors import InputError
from eorinfer.core.files import make_folder, whole_hdf5, write_json
from eorinfer.core.progress import Progress
from eorinfer.core.seeds import StudyStream, stream_rng, stream_seed
from eorinfer.figures.imageflow import Images, compare_images, comparison_line, images_figure
from eorinfer.figures.style import going_on, save_figure
from eorinfer.imageflow.model import ImageFlow, dequantised
from eorinfer.imageflow.training import row_conditions
from eorinfer.run.context import RunContext
from eorinfer.run.received import load_received
from eorinfer.run.run import Run
from eorinfer.settings.explain import instead
from eorinfer.training.data import validation_rows
from simulators.base import fingerprint_of

FORMAT = 1
Change = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


@dataclass(frozen=True)
class Wanted:
    """Condition at which images are wanted.

    Attributes
    ----------
    name
        Name in words.
    y
        (n, P) conditions, one for each image.
    """

    name: str
    y: NDArray[np.float64]


def given_theta(flow: ImageFlow, pairs: Sequence[str], n: int) -> list[Wanted]:
    """Repeat the condition of ``NAME=VALUE`` pairs n times.

    Raises
    ------
    InputError
        If a name or a value is wrong, or one is lacking.
    """
    names = flow.conditions.names
    values: dict[str, float] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name not in names:
            raise InputError(f"--theta {pair}: {instead(name, names, 'condition')}")
        if name in values:
            raise InputError(f"--theta {pair}: {name} is given already ({values[name]:g})")
        values[name] = _number(text, f"--theta {pair}")
    if lacking := [name for name in names if name not in values]:
        raise InputError(f"--theta lacks {', '.join(lacking)}; this flow needs {', '.join(names)}")
    y = np.array([values[name] for name in names])
    return [Wanted(", ".join(f"{name} = {v:g}" for name, v in zip(names, y, strict=True)), np.tile(y, (n, 1)))]


def given_neutral_fraction(flow: ImageFlow, values: Sequence[float], n: int) -> list[Wanted]:
    """Each neutral fraction n times, the same in all channels.

    Raises
    ------
    InputError
        If the flow has another condition, or a value is not between 0 and 1.
    """
    if flow.settings.condition != "neutral-fraction":
        raise InputError(f"--neutral-fraction: this flow needs --theta {' '.join(flow.conditions.names)}")
    for value in values:
        if not 0 <= value <= 1:
            raise InputError(f"--neutral-fraction {value:g}: must lie between 0 and 1")
    size = len(flow.conditions.names)
    return [Wanted(f"x_HI = {value:g}", np.full((n, size), value)) for value in values]


def write_samples(
    model: Path,
    wanted: Sequence[Wanted],
    out: Path,
    n: int,
    seed: int,
    run: Path | None,
    progress: Progress,
    modules: Path | None = None,
) -> None:
    """Write ``images.h5``, ``images.json`` and ``images.png``.

    Parameters
    ----------
    model
        Folder of the flow.
    wanted
        Where; empty for the conditions of rows that training held out.
    out
        Folder.
    n
        Images of each.
    seed
        Seed of all randomness.
    run
        Run that real images are taken from: at given theta they are simulated, at a neutral fraction those held out
        from training that are nearest to it are taken. Without it there are none; for conditions of held-out rows it
        is the run that the model is in.
    progress
        Receives lines and bars.
    modules
        Folder of the user's own modules, for a run with some.

    Raises
    ------
    InputError
        If there is no flow, or no run where one is needed.
    WorkError
        If a larger share of real images cannot be simulated than the run's config allows.
    """
    flow = ImageFlow.load(model)
    if run is None and not wanted and (model.parent / "config.toml").exists():
        run = model.parent
    if run is None and not wanted:
        raise InputError(f"{model}: give --theta or --neutral-fraction, or --run for the conditions of held-out images")
    source = None if run is None else RealImages(flow, Run(load_received(run, modules), run, progress), seed)
    make_folder(out)
    several = []
    reals: list[NDArray[np.float32] | None] = [None if source is None else source.at(place.y) for place in wanted]
    if not wanted:
        assert source is not None
        real, y = source.held_out(n)
        wanted, reals = [Wanted("held-out conditions", y)], [real]
    conditions, marks = [], []
    for i, (place, theirs) in enumerate(zip(wanted, reals, strict=True)):
        outside = flow.outside(place.y)
        if outside.any():
            spans = ", ".join(f"{p.name} {p.low:.4g} to {p.high:.4g}" for p in flow.conditions.parameters)
            progress.line(f"WARNING: {place.name}: outside of what training saw ({spans}); the images are marked")
        name = f"{place.name}, outside of training" if outside.any() else place.name
        several.append(Images(name, flow.sample(place.y, stream_seed(seed, StudyStream.FLOW_IMAGES, i)), theirs))
        conditions.append(place.y)
        marks.append(outside)
    contents = [compare_images(images, flow.observable) for images in several]
    with whole_hdf5(out / "images.h5") as file:
        for i, (images, y, outside) in enumerate(zip(several, conditions, marks, strict=True)):
            group = file.create_group(f"{i:02d}")
            group.attrs["name"] = images.name
            for name, cubes in (("generated", images.generated), ("real", images.real)):
                if cubes is not None:
                    data = group.create_dataset(name, data=cubes)
                    o = flow.observable
                    data.attrs.update(unit=o.unit, axes=["image", *o.axes], cell_size=np.array(o.cell_size))
                    data.attrs["channels"] = np.array(o.channels)
            group.create_dataset("conditions", data=y).attrs["names"] = flow.conditions.names
            group.create_dataset("outside_training", data=outside)
        file.attrs.update(format=FORMAT, dequantisation=flow.dequantisation)
    write_json(
        out / "images.json",
        {
            "format": FORMAT,
            "model": str(model),
            "dequantisation": flow.dequantisation,
            "conditions": [
                {"name": images.name, "outside_training": bool(outside.any()), **content}
                for images, outside, content in zip(several, marks, contents, strict=True)
            ],
        },
    )
    with going_on(out / "images.png", progress.line):
        save_figure(images_figure(several, contents, flow.observable), out / "images")
    for images, content in zip(several, contents, strict=True):
        progress.line(comparison_line(images, content))
    progress.line(f"results: {out}/images.png, images.h5, images.json")


@dataclass(frozen=True)
class Chosen:
    """Images of a run.

    Attributes
    ----------
    rows
        Rows that they come from.
    numbers
        (n,) of the images, counted one row after the other.
    slices
        Images of a row.
    y
        (n, P) their conditions.
    """

    rows: Rows
    numbers: NDArray[np.int64]
    slices: int
    y: NDArray[np.float64]

    def __getitem__(self, numbers: NDArray[np.int64]) -> "Chosen":
        return Chosen(self.rows, self.numbers[numbers], self.slices, self.y[numbers])

    @property
    def seed(self) -> NDArray[np.uint64]:
        """(n,) of their realisations."""
        return self.rows.seed[self.numbers // self.slices]

    def places(self) -> list[tuple[int, int | None]]:
        """Row of each, and which of its slices it is."""
        pairs = (divmod(int(number), self.slices) for number in self.numbers)
        return [(row, place if self.slices > 1 else None) for row, place in pairs]


class RealImages:
    """Images of a run, as the flow's training saw them: observed, sliced and dequantised."""

    def __init__(self, flow: ImageFlow, run: Run, seed: int) -> None:
        self._flow, self._seed, self._run = flow, seed, run
        self._context: RunContext = run.context

    def held_out(self, n: int, change: Change | None = None) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """N images that training held out and their conditions (n, P), spread over the rows.

        With `change` the clean cubes (1, C, *cells) are changed before they are observed, with the same noise.
        """
        chosen = self.choose(n)
        return self.images(chosen, change), chosen.y

    def choose(self, n: int, *, held_out: bool = True) -> "Chosen":
        """Choose n images at most, held out in training or else used in it, spread over the rows."""
        rows, y = self._rows(held_out=held_out)
        # One of each row before a second one of any.
        rng = stream_rng(self._seed, StudyStream.HELD_OUT)
        numbers = rng.permuted(np.arange(y.shape[0] * y.shape[1]).reshape(y.shape[:2]), axis=1)
        chosen = rng.permutation(numbers).T.ravel()[:n]
        return Chosen(rows, chosen, y.shape[1], y.reshape(-1, y.shape[-1])[chosen])

    def at(self, y: NDArray[np.float64]) -> NDArray[np.float32]:
        """Make an image for each condition y (n, P), which are all the same."""
        if self._flow.settings.condition != "neutral-fraction":
            return self._simulated(y)
        rows, there = self._rows()
        flat = there.reshape(-1, there.shape[-1])
        nearest = np.argsort(np.abs(flat - y[0]).max(-1))[: len(y)]
        off = float(np.abs(flat[nearest] - y[0]).max())
        boxes = len(np.unique(rows.seed[nearest // there.shape[1]]))
        self._context.progress.line(
            f"x_HI = {y[0, 0]:g}: real images within {off:.2g} of it, from {boxes} realisations"
        )
        return self.images(Chosen(rows, nearest, there.shape[1], flat[nearest]))

    def _rows(self, *, held_out: bool = True) -> tuple[Rows, NDArray[np.float64]]:
        config = self._context.config
        rows = self._run.training_rows(self._run.observe())
        rows = rows[validation_rows(rows.seed, config.tables.training.validation_fraction) == held_out]
        y = row_conditions(self._context.bank, rows, config.prior, self._flow.settings).numpy()
        if self._flow.settings.image == "slices":  # parameters are those of all slices of a cube
            y = np.broadcast_to(y, (len(y), config.observable.cells[-1], y.shape[-1]))
        return rows, y

    def images(self, chosen: "Chosen", change: Change | None = None) -> NDArray[np.float32]:
        """Observe the images (n, C, *cells) once; `change` as in `held_out`."""
        streams = (StudyStream.HELD_OUT_NOISE, StudyStream.HELD_OUT_CHANGE)
        generator, own = (torch.Generator().manual_seed(stream_seed(self._seed, stream)) for stream in streams)
        out = []
        for row, place in chosen.places():
            clean = self._clean(chosen.rows[[row]])
            if change is not None:
                clean = change(clean, own)
            out.append(self._observed(clean, place, generator))
        return torch.cat(out).numpy() if out else np.zeros((0, *self._flow.observable.shape), np.float32)

    def measured(
        self, chosen: "Chosen", draws: int, measure: Callable[[torch.Tensor], torch.Tensor]
    ) -> NDArray[np.float64]:
        """Apply `measure` to images (B, C, *cells), each observed several times: (n, draws, D)."""
        generator = torch.Generator().manual_seed(stream_seed(self._seed, StudyStream.MEASURED_NOISE))
        out = []
        for row, place in chosen.places():
            clean = self._clean(chosen.rows[[row]])
            observed = self._observed(clean.expand(draws, *clean.shape[1:]), place, generator)
            out.append(measure(observed).double().numpy())
        return np.stack(out)

    def _clean(self, row: Rows) -> torch.Tensor:
        return torch.from_numpy(self._context.bank.read(self._context.config.observable.name, row))

    def _simulated(self, y: NDArray[np.float64]) -> NDArray[np.float32]:
        """New simulations at theta; parameters that are no conditions are drawn from the prior."""
        config, names = self._context.config, self._flow.conditions.names
        if config.imported:
            raise InputError(
                f"{config.file}: imported cubes cannot be simulated anew; leave out --run, or --theta for the "
                "conditions of images that training held out"
            )
        generator = torch.Generator().manual_seed(stream_seed(self._seed, StudyStream.SIMULATED_NOISE))
        theta = config.prior.sample(len(y), stream_rng(self._seed, StudyStream.SIMULATED_THETA))
        theta[:, [config.prior.names.index(name) for name in names]] = y
        # Number 0: no round of any run trains on these rows.
        plan = plan_round(
            0,
            fingerprint_of({"image samples": theta.tolist()}),
            theta,
            config.simulator,
            stream_seed(self._seed, StudyStream.SIMULATIONS),
            share=1,
        )
        plans = [Used(self._context.bank.add(plan), len(y))]
        self._context.simulations.fill(plans, "real images")
        rows = planned_rows(self._context.bank, plans).ok
        images = [self._observed(self._clean(rows[[i]]), None, generator) for i in range(len(rows))]
        return torch.cat(images).numpy()

    @torch.no_grad()
    def _observed(self, clean: torch.Tensor, place: int | None, generator: torch.Generator) -> torch.Tensor:
        """Cubes (B, C, *cells) as images, with noise of their own; of a slice at random where no `place` is given."""
        images = self._context.survey(clean, generator)
        if self._flow.settings.image == "slices":
            if place is None:
                place = int(torch.randint(images.shape[-1], (), generator=generator))
            images = images[..., place]
        return dequantised(images, self._flow.dequantisation, generator)


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{where}: {text!r} is no number; give NAME=VALUE") from error
    if not np.isfinite(value):
        raise InputError(f"{where}: must be finite")
    return value
