"""Score separators on mocks that they were not trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from eorinfer.core.files import make_folder, write_json
from eorinfer.core.seeds import WorkStream, item_seed, stream_seed
from eorinfer.cubes.observation import Observation
from eorinfer.figures.separation import separation_figure, separation_table
from eorinfer.figures.style import write_figure
from eorinfer.separation.apply import estimate, posterior
from eorinfer.separation.calibration import RADIUS
from eorinfer.separation.data import Lines, Pairs, line_names
from eorinfer.separation.draw_scores import Draws
from eorinfer.separation.model import Separator, SeparatorSpec
from eorinfer.separation.scores import Maps, score
from eorinfer.survey import SurveySettings, build_survey
from simulators import Observable

#: Maps at once, draws of each, and fewest maps that are scored.
BATCH, DRAWS, FEWEST = 32, 8, 2


@dataclass(frozen=True)
class ScoreSettings:
    """Which mocks a separator is scored on, and how.

    Attributes
    ----------
    bank
        Bank; its rows are used that share no realisation with training and validation.
    survey
        Survey that observes them.
    maps
        Rows, at most.
    radius
        Peak radius, in arcmin.
    seed
        Seed of the noise.
    """

    bank: Bank
    survey: SurveySettings
    maps: int = 300
    radius: float = RADIUS
    seed: int = 1


def load_separators(model: Path, l1: Path | None) -> dict[str, Separator]:
    """Load the separators to score, by the names that tables have for them.

    Raises
    ------
    InputError
        If there is none, or they find different lines.
    """
    separators = {"GAN" if l1 else "network": Separator.load(model)}
    if l1 is not None:
        separators["L1 alone"] = Separator.load(l1)
    first, *others = (separator.spec for separator in separators.values())
    for other in others:
        if other.targets != first.targets:
            raise InputError(
                f"the separators find {first.lines} and {other.lines}: they can only be compared on the same"
            )
    return separators


def refuse_other_mocks(separators: dict[str, Separator], observables: tuple[Observable, ...], where: str) -> None:
    """Refuse mocks, the image and its lines, that are not of the kind that separators were trained on.

    Raises
    ------
    InputError
        That says what differs; `where` names the mocks.
    """
    image, names = observables[0], line_names(observables)
    for separator in separators.values():
        empty = np.zeros(image.shape, np.float32)
        Observation.from_observable(image, empty).check(separator.spec.observable, where)
        if lacking := [target.name for target in separator.spec.targets if target.name not in names]:
            raise InputError(f"{where}: has no {lacking[0]}, only {', '.join(names)}")


def score_separators(model: Path, settings: ScoreSettings, out: Path, l1: Path | None = None) -> str:
    """Score a separator beside the observed map and the Wiener filter: ``scores.json``, ``scores.png``, and a table.

    Parameters
    ----------
    model
        Folder of a separator.
    settings
        Maps and settings to score on.
    out
        Folder.
    l1
        Folder of another separator of the same lines, trained without a discriminator.

    Raises
    ------
    InputError
        If the mocks are not of the kind that the separators were trained on, or none is left.
    """
    separators = load_separators(model, l1)
    refuse_other_mocks(separators, settings.bank.observables, str(settings.bank.path))
    maps = _scored_maps(separators, settings)
    spec = next(iter(separators.values())).spec
    observable = settings.bank.observables[0]
    try:
        scores = score(maps, observable, spec.lines, settings.radius)
    except ValueError as error:
        raise InputError(f"{error}: take a larger one") from error
    scores |= {"format": 1, "model": str(model), "survey": settings.survey.model_dump(mode="json")}
    if unlike := unlike_training(spec, settings.bank, settings.survey):
        scores["unlike_training"] = unlike
    make_folder(out)
    write_json(out / "scores.json", scores)
    shown = {name: made[0] for name, made in maps.made.items() if name != "observed"}
    side = 60 * observable.field_of_view
    figure = separation_figure(
        maps.made["observed"][0], maps.true[0], shown, spec.lines, side=side, unit=observable.unit
    )
    write_figure(figure, out / "scores.png")
    notes = [f"these mocks are not like those of its training: {', '.join(unlike)}", ""] if unlike else []
    return "\n".join([*notes, separation_table(scores)])


def unlike_training(spec: SeparatorSpec, bank: Bank, survey: SurveySettings) -> list[str]:
    """Name the settings in which mocks differ from those that a separator was trained on."""
    tables = {
        "simulator": (spec.facts.get("simulator", {}), bank.description["simulator"]),
        "survey": (spec.survey.model_dump(mode="json"), survey.model_dump(mode="json")),
    }
    return [
        f"[{table}] {key} = {now.get(key)} (trained: {then.get(key)})"
        for table, (then, now) in tables.items()
        for key in sorted({*then, *now} if then else ())
        if then.get(key) != now.get(key)
    ]


def _scored_maps(separators: dict[str, Separator], settings: ScoreSettings) -> Maps:
    """Maps of the bank's rows that no separator was trained on, and what every method makes of them."""
    bank, image = settings.bank, settings.bank.observables[0]
    first = next(iter(separators.values())).spec
    used: set[int] = set()
    for separator in separators.values():
        seeds = separator.spec.facts["seeds"]
        used |= {*seeds["training"], *seeds["validation"]}
    rows = bank.rows().ok
    rows = rows[~np.isin(rows.seed, list(used))][: settings.maps]
    if len(rows) < FEWEST:
        raise InputError(
            f"{bank.path}: {len(rows)} map(s) of realisations that the separator was not trained on, at least {FEWEST} "
            "are needed; give mocks of another seed, or more of them"
        )
    lines = Lines(bank, rows)
    pairs = Pairs(build_survey(settings.survey, image), image.symmetry, lines.names, first.targets)
    generator = torch.Generator().manual_seed(stream_seed(settings.seed, WorkStream.SEPARATION_SCORES))
    channels = tuple(target.channel for target in first.targets)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for separator in separators.values():
        separator.to(device)
    reference = next(iter(separators.values()))
    blocks: list[dict[str, Tensor]] = []
    with torch.no_grad():
        for start in range(0, len(rows), BATCH):
            (clean,) = lines.__getitems__(list(range(start, min(start + BATCH, len(rows)))))
            observed, true = pairs(clean, generator)
            seen = observed.to(device)
            made = {name: estimate(separator, seen).cpu() for name, separator in separators.items()}
            if reference.spec.settings.kind != "mean":
                mean, draws = (x.cpu() for x in posterior(reference, seen, DRAWS, item_seed(settings.seed, start)))
                made |= {"a draw": draws[0], "mean of draws": draws.mean(0)}
                made |= {"mean": mean, "draws": draws.transpose(0, 1)}
            made |= {"Wiener": reference.wiener(seen).cpu(), "observed": observed[:, channels]}
            blocks.append({"true": true, "noise": observed - clean.sum(1), "image": observed, **made})
    whole = {key: torch.cat([block[key] for block in blocks]).numpy() for key in blocks[0]}
    means = reference.wiener.mean_lines.flatten().double().cpu().numpy()
    true, noise, seen_maps = whole.pop("true"), whole.pop("noise"), whole.pop("image")
    # Chosen on maps that are not scored, for peaks of this radius.
    chosen = next(iter(separators.values())).spec.facts.get("thresholds", {}) if settings.radius == RADIUS else {}
    if "draws" not in whole:
        return Maps(true, whole, noise, channels, means, thresholds=chosen)
    drawn = whole.pop("draws").swapaxes(0, 1)
    rests = (_rest(seen_maps, true, channels), np.stack([_rest(seen_maps, draw, channels) for draw in drawn]))
    return Maps(true, whole, noise, channels, means, Draws(whole.pop("mean"), drawn, *rests), chosen)


def _rest(image: NDArray[np.float32], lines: NDArray[np.float32], channels: tuple[int, ...]) -> NDArray[np.float32]:
    """Take lines (N, L, *cells) from the channels of observed maps (N, C, *cells) that they are in."""
    rest = image.copy()
    for i, channel in enumerate(channels):
        rest[:, channel] -= lines[:, i]
    return rest
