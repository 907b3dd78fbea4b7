"""A trial of a user's own survey before anything is simulated for it."""

import torch
from torch import Tensor

from eorinfer.settings.survey import SurveySettings
from eorinfer.survey import build_survey
from eorinfer.survey.base import Survey
from simulators import Observable

#: Cubes of the trial; draws of the noise of one among different others, where its noise depends on these; and how many
#: times the variance of its mean over them may differ.
CUBES, DRAWS, MOST = 2, 32, 4.0


@torch.no_grad()
def try_survey(settings: SurveySettings, observable: Observable) -> None:
    """Observe a few cubes of noise twice with the same seed, and one of them among others.

    Raises
    ------
    ValueError
        If the survey fails, changes shape or dtype, draws numbers from elsewhere than the generator, or makes something
        else of a cube among others: an observation is alone.
    """
    clean = torch.randn(CUBES, *observable.shape, generator=torch.Generator().manual_seed(0))
    kind = f'kind = "{settings.kind}"'
    try:
        survey = build_survey(settings, observable)
        first, second = (survey(clean.clone(), torch.Generator().manual_seed(1)) for _ in range(2))
    except ValueError:
        raise
    except Exception as error:  # a user's module may do anything
        raise ValueError(f"{kind}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not isinstance(first, torch.Tensor) or (first.shape, first.dtype) != (clean.shape, clean.dtype):
        made = f"{tuple(first.shape)} {first.dtype}" if isinstance(first, torch.Tensor) else type(first).__name__
        raise ValueError(f"{kind} makes of {tuple(clean.shape)} {clean.dtype} {made}, not the same")
    if not torch.equal(first.nan_to_num(), second.nan_to_num()):  # cubes of noise may not be what it is for
        raise ValueError(f"{kind} gives two results for one seed: draw all noise from the generator")
    others = clean.clone()
    others[1:] = 10 * others[1:] + 10
    if _mixes(survey, clean, others):
        raise ValueError(
            f"{kind} makes something else of a cube among others than of the cube alone: it must treat each by itself, "
            "for an observation is alone"
        )


def _mixes(survey: Survey, clean: Tensor, others: Tensor) -> bool:
    """Tell whether the first cube, the same in both batches (B, C, *cells), is observed differently among others."""

    def drawn(cubes: Tensor, seed: int) -> Tensor:
        return survey(cubes.clone(), torch.Generator().manual_seed(seed))[0].double()

    first, second = drawn(clean, 1), drawn(others, 1)
    if torch.equal(first.nan_to_num(), second.nan_to_num()):
        return False
    # Where the number of random numbers depends on the cubes its noise may be another one, but not its mean.
    one, two = (torch.stack([drawn(cubes, seed) for seed in range(DRAWS)]) for cubes in (clean, others))
    known = (one.isfinite() & two.isfinite()).all(0)
    apart = (one.mean(0) - two.mean(0)).square()[known].sum()
    return bool(apart > MOST * ((one.var(0) + two.var(0)) / DRAWS)[known].sum())
