"""A trial of a user's own survey before anything is simulated for it."""

import torch

from eorinfer.settings.survey import SurveySettings
from eorinfer.survey import build_survey
from simulators import Observable

#: Cubes of the trial.
CUBES = 2


@torch.no_grad()
def try_survey(settings: SurveySettings, observable: Observable) -> None:
    """Observe a few cubes of noise twice with the same seed.

    Raises
    ------
    ValueError
        If the survey fails, changes shape or dtype, or draws numbers from elsewhere than the generator.
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
    if not torch.equal(first, second):
        raise ValueError(f"{kind} gives two results for one seed: draw all noise from the generator")
