"""Shapes that docstrings state, executed: in tests these methods check what they are given and what they return.

The package itself knows nothing of jaxtyping, so that users need not have it.
"""

import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from beartype import beartype
from jaxtyping import Float, Float32, Float64, jaxtyped
from torch import Tensor

CUBES, MAPS, CONDITIONS = Float[Tensor, "B C *cells"], Float[Tensor, "B C *cells"], Float[Tensor, "B P"]
THETA_DENSITY: dict[str, dict[str, Any]] = {
    "loss": {"theta": Float64[Tensor, "B P"], "observed": CUBES, "return": Float[Tensor, "B"]},
    "log_prob": {
        "theta": Float64[Tensor, "n B P"],
        "features": Float32[Tensor, "B F"],
        "return": Float64[Tensor, "n B"],
    },
}
DENSITY: dict[str, dict[str, Any]] = {
    "log_ratio": {
        "theta": Float64[Tensor, "n B P"],
        "features": Float32[Tensor, "B F"],
        "return": Float32[Tensor, "n B"],
    },
    "sample": {"n": int, "features": Float32[Tensor, "B F"], "return": Float64[Tensor, "{n} B P"]},
}
IMAGE_DENSITY: dict[str, dict[str, Any]] = {
    "forward": {"x": MAPS, "y": CONDITIONS, "return": tuple[MAPS, Float64[Tensor, "B"]]},
    "inverse": {"z": MAPS, "y": CONDITIONS, "return": MAPS},
    "log_prob_scales": {"x": MAPS, "y": CONDITIONS, "return": Float64[Tensor, "B S"]},
    "fit_start": {"x": MAPS, "y": CONDITIONS, "return": None},
}
SURVEY: dict[str, dict[str, Any]] = {"forward": {"clean": CUBES, "generator": torch.Generator, "return": CUBES}}
#: By class: the shapes of its methods. Equal names in one signature are equal lengths.
SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "eorinfer.survey.base:Identity": SURVEY,
    "eorinfer.survey.gaussian:WhiteNoiseSurvey": SURVEY,
    "eorinfer.survey.ska:SkaLowSurvey": SURVEY,
    "eorinfer.survey.spherex:SphereXSurvey": SURVEY,
    "eorinfer.summaries.scattering:Scattering": {"forward": {"x": CUBES, "return": Float[Tensor, "B C K"]}},
    "eorinfer.networks.embedding:Embedding": {
        "forward": {"observed": CUBES, "return": Float32[Tensor, "B features"]},
        "fit_scaling": {"observed": CUBES, "return": None},
    },
    "eorinfer.networks.scaling:ImageScaling": {"forward": {"x": CUBES, "return": CUBES}},
    "eorinfer.networks.embedding:ConvolutionalNetwork": {
        "forward": {"x": CUBES, "return": Float32[Tensor, "B features"]}
    },
    "eorinfer.networks.embedding:FilterPower": {"forward": {"x": CUBES, "return": Float[Tensor, "B outputs"]}},
    "eorinfer.npe.density:ThetaDensity": THETA_DENSITY,
    "eorinfer.npe.network:PosteriorNetwork": DENSITY,
    "eorinfer.npe.regression:RegressionNetwork": DENSITY,
    "eorinfer.npe.truncated:TruncatedNormalMap": {
        "forward": {
            "v": Float64[Tensor, "*batch P"],
            "features": Float[Tensor, "*#batch F"],
            "widening": float,
            "return": tuple[Float32[Tensor, "*batch P"], Float32[Tensor, "*batch"]],
        },
    },
    "eorinfer.imageflow.isotropic:IsotropicFlow": IMAGE_DENSITY,
    "eorinfer.imageflow.multiscale:MultiscaleFlow": IMAGE_DENSITY,
    "eorinfer.imageflow.density:ImageDensity": {
        "log_prob": {"x": MAPS, "y": CONDITIONS, "return": Float64[Tensor, "B"]},
        "sample": {"y": CONDITIONS, "generator": torch.Generator, "return": Float[Tensor, "B C *cells"]},
        "unit": {"y": CONDITIONS, "dtype": torch.dtype, "return": CONDITIONS},
    },
}


def check_shapes() -> None:
    """Make the methods of `SHAPES` check their shapes, where their modules are loaded."""
    for place, methods in SHAPES.items():
        module, _, name = place.partition(":")
        if module not in sys.modules:
            continue
        cls = getattr(sys.modules[module], name)
        for method, shapes in methods.items():
            if method in vars(cls) and not hasattr(vars(cls)[method], "shapes"):
                setattr(cls, method, _checked(vars(cls)[method], shapes))


def _checked(function: Any, shapes: dict[str, Any]) -> Callable[..., Any]:
    """A copy of a method with the annotations of jaxtyping; what wraps it, such as `torch.no_grad`, stays around it."""
    if inner := getattr(function, "__wrapped__", None):
        return _mark(torch.no_grad()(_checked(inner, shapes)))
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__, copy.__doc__, copy.__qualname__ = (
        function.__kwdefaults__,
        function.__doc__,
        function.__qualname__,
    )
    copy.__annotations__ = shapes
    return _mark(jaxtyped(copy, typechecker=beartype))


def _mark(function: Any) -> Any:
    function.shapes = True
    return function
