"""Whether an emulator of P(k) knows enough for its likelihood, by held-out spectra and their scatter over the prior.

With too few simulations the means are wrong by many of their standard deviations where no network was trained. The
covariance is fitted to these residuals, which are no Gaussian's, and new spectra are further away than it says.
"""

import torch
from torch import Tensor

#: Nats for each bin, see `information`, below which a likelihood is not trusted. A useful emulator is above 0. One of
#: spectra of noise alone is at -0.1 to -0.25, since a Gaussian has not the skewness of power in a few modes, and its
#: likelihood is right. Of nine parameters and 24 bins 30, 60 and 150 rows gave -4.9, -0.7 and (of steeper spectra)
#: -3.1. New spectra were then 3.0, 1.6 and 6.8 sigma rms from the mean, and 0.8 to 1.2 sigma wherever the nats were
#: above 0, as with 300 rows or more.
TRUSTED = -0.5
#: A bin varies if its asinh(P / unit) does by more; one that is empty in all boxes does not.
VARIES = 1e-3


def distrust(power: Tensor, z: Tensor, deviation: Tensor, unit: Tensor, centre: Tensor, spread: Tensor) -> str:
    """Say why the likelihood of an emulator cannot be trusted; empty where it can. Parameters of `information`."""
    nats = information(power, z, deviation, unit, centre, spread)
    if nats >= TRUSTED:
        return ""
    return (
        "the emulator tells less of the P(k) of held-out simulations than their scatter over the prior does "
        f"({nats:.2g} nats for each bin). Its likelihood, and an MCMC with it, cannot be trusted. Simulate more "
        "([inference] rounds), or take fewer [power_spectrum] bins"
    )


def information(power: Tensor, z: Tensor, deviation: Tensor, unit: Tensor, centre: Tensor, spread: Tensor) -> float:
    """Give the nats that an emulator tells of held-out spectra, for each bin, over their scatter over the prior.

    A power P has the density N(mean, deviation) by the emulator. By the scatter asinh(P / unit), which is ln P where
    power is large, is normal, whatever theta is.

    Parameters
    ----------
    power, z
        Power (n, draws, D), and its residuals in units of `deviation` from a mean that has not seen the row.
    deviation
        Standard deviations (n, D) by the network of that mean.
    unit, centre, spread
        Unit, mean and standard deviation of asinh(P / unit) over all rows, (D,) each.
    """
    varies = spread > VARIES
    if not varies.any():
        return 0.0
    standard = (torch.asinh(power / unit) - centre) / spread
    scatter = spread * torch.hypot(power, unit)  # of P, where asinh(P / unit) scatters by `spread`
    gained = 0.5 * (standard.square() - z.square()) + torch.log(scatter / deviation[:, None])
    return float(gained[..., varies].mean())
