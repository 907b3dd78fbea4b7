"""A trial of the user's own parts before anything is simulated for them."""

import torch
from torch import Tensor

from eorinfer.core.prior import Prior
from eorinfer.networks.density import build_flow
from eorinfer.npe.architecture import Architecture
from eorinfer.npe.network import build_embedding
from eorinfer.summaries.build import build_summary
from simulators import Observable
from simulators.parts import is_own

#: Cubes and draws of the trial.
CUBES, DRAWS = 3, 2


@torch.no_grad()
def try_architecture(architecture: Architecture, prior: Prior, observable: Observable) -> None:
    """Send a few cubes of noise through embedding and flow.

    Raises
    ------
    ValueError
        If a part fails, or makes arrays of another shape than it should; the message names table and key.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cubes = torch.randn(CUBES, *observable.shape)
        features = _try_embedding(architecture, prior, observable, cubes)
        if architecture.flow.kind != "gaussian":
            _try_flow(architecture, len(prior.parameters), torch.randn(CUBES, features))


def _try_embedding(architecture: Architecture, prior: Prior, observable: Observable, cubes: Tensor) -> int:
    """Length of the features."""
    settings, bins, beside = architecture.embedding, architecture.power_spectrum, architecture.beside
    for name in filter(is_own, settings.all_summaries):
        where = f'[embedding] summaries: "{name}"'
        before = cubes.clone()
        with _Named(where):
            summary = build_summary(name, observable, bins, beside).eval()
            values = summary(cubes)
        if not torch.equal(cubes, before):
            raise ValueError(f"{where} changes the cubes that it is given; let it work on a copy, cubes.clone()")
        if not isinstance(values, Tensor) or values.ndim < 2 or len(values) != CUBES:
            raise ValueError(f"{where} makes of {tuple(cubes.shape)} {_shape(values)}, not ({CUBES}, ...)")
        with _Named(where):
            alone = torch.cat([summary(cube[None]) for cube in cubes])
        _is_alone(where, values, alone)
    where = f'[embedding] network = "{settings.network}"' if settings.network else "[embedding]"
    with _Named(where):
        embedding, features = build_embedding(len(prior.parameters), observable, settings, bins, beside)
        if embedding.network is not None:
            embedding.eval()
            made = embedding.network(cubes)
            _has_shape(made, (CUBES, features), f"of {tuple(cubes.shape)}")
            alone = torch.cat([embedding.network(cube[None]) for cube in cubes])
        embedding.fit_scaling(cubes)
    if embedding.network is not None:
        _is_alone(where, made, alone)
    return features


def _try_flow(architecture: Architecture, p: int, condition: Tensor) -> None:
    kind = f'[flow] kind = "{architecture.flow.kind}"'
    with _Named(kind):
        flow = build_flow(architecture.flow, p, condition.shape[-1], architecture.beside)
    with _Named(f"{kind}, sample(({DRAWS},), condition)"):
        draws = flow.sample((DRAWS,), condition=condition)
        _has_shape(draws, (DRAWS, CUBES, p), f"of {tuple(condition.shape)}")
    with _Named(f"{kind}, log_prob(z, condition)"):
        _has_shape(flow.log_prob(draws, condition=condition), (DRAWS, CUBES), f"of {tuple(draws.shape)}")


def _is_alone(where: str, together: Tensor, alone: Tensor) -> None:
    """Refuse a part that makes of a cube another thing among others than alone: it mixes them, or is random."""
    same = torch.isclose(together, alone, rtol=1e-2, atol=1e-4 * float(together.nan_to_num().abs().max()))
    if not (same | ~together.isfinite()).all():
        raise ValueError(
            f"{where} makes something else of a cube among others than of the cube alone: it must treat each by "
            "itself, and draw no random numbers"
        )


class _Named:
    """Names table and key in whatever goes wrong inside: a user's part may do anything."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _WrongShape):
            raise ValueError(f"{self._where} makes {error}") from error
        if isinstance(error, Exception):
            text = " ".join(str(error).split())
            raise ValueError(f"{self._where}: {type(error).__name__}: {text}") from error


class _WrongShape(Exception):
    pass


def _has_shape(values: object, shape: tuple[int, ...], of: str) -> None:
    if not isinstance(values, Tensor) or tuple(values.shape) != shape:
        raise _WrongShape(f"{of} {_shape(values)}, not {shape}")


def _shape(values: object) -> str:
    return str(tuple(values.shape)) if isinstance(values, Tensor) else type(values).__name__
