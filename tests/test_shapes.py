"""The shapes of `tests.shapes` are those of methods that there are, and a wrong one is noticed."""

import importlib
import inspect

import pytest
import torch
from jaxtyping import TypeCheckError

from tests.shapes import SHAPES, check_shapes


@pytest.mark.parametrize("place", SHAPES)
def test_every_shape_is_that_of_a_method(place: str) -> None:
    module, _, name = place.partition(":")
    cls = getattr(importlib.import_module(module), name)
    check_shapes()
    for method, shapes in SHAPES[place].items():
        found = inspect.getattr_static(cls, method)
        assert set(shapes) - {"return"} == set(inspect.signature(found).parameters) - {"self"}
        if method in vars(cls):
            assert found.shapes


def test_a_wrong_shape_is_noticed() -> None:
    from eorinfer.networks.embedding import ConvolutionalNetwork
    from eorinfer.survey.gaussian import WhiteNoiseSurvey

    check_shapes()
    network = ConvolutionalNetwork(1, (8, 8), 2, (True, True))
    assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 2 * 3)
    with pytest.raises(TypeCheckError):
        WhiteNoiseSurvey(1.0)(torch.zeros(8), torch.Generator())
    with pytest.raises(TypeCheckError):
        WhiteNoiseSurvey(1.0)(torch.zeros(2, 1, 8, dtype=torch.int64), torch.Generator())
