"""A survey of one's own: a Gaussian beam and white noise, with the settings that a config has."""

import math

import torch
from pydantic import PositiveFloat
from torch import Tensor

from eorinfer.core.arrays import white_noise
from eorinfer.survey import SurveyTable
from eorinfer.survey.base import Survey
from simulators import Observable


class MySurvey(SurveyTable):
    """``[survey] kind = "mytelescope:MySurvey"``."""

    draws_noise_everywhere = True

    fwhm: PositiveFloat = 2.0
    sigma: PositiveFloat = 0.3

    def build(self, observable: Observable) -> "BeamSurvey":
        return BeamSurvey(observable, self.fwhm, self.sigma)

    def check(self, observable: Observable) -> None:
        if min(observable.box_length) < self.fwhm:
            raise ValueError(f"fwhm = {self.fwhm:g} Mpc is wider than the box")


class BeamSurvey(Survey):
    """Smooth across the first two axes with a beam of `fwhm` Mpc, then add `sigma` to every cell."""

    response: Tensor

    def __init__(self, observable: Observable, fwhm: float, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma
        (nx, ny), (dx, dy) = observable.cells[:2], observable.cell_size[:2]
        kx = 2 * math.pi * torch.fft.fftfreq(nx, dx)
        ky = 2 * math.pi * torch.fft.fftfreq(ny, dy)
        width = fwhm / math.sqrt(8 * math.log(2))
        response = torch.exp(-0.5 * width**2 * (kx[:, None] ** 2 + ky**2))
        self.register_buffer("response", response.reshape(nx, ny, *(1,) * (len(observable.cells) - 2)))

    def forward(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        smooth = torch.fft.ifft2(torch.fft.fft2(clean, dim=(2, 3)) * self.response, dim=(2, 3)).real
        return smooth + self.sigma * white_noise(clean, generator)
