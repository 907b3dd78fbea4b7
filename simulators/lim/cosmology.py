"""Background, linear power, halo mass function and bias, for the line-intensity mocks.

Lengths are comoving Mpc and masses Msun throughout; `hmf` uses units of h, and these do not leave this module.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad

#: Speed of light, km/s.
LIGHT = 299792.458
#: Critical overdensity of collapse.
COLLAPSE = 1.686
#: Mean density of halos over that of matter.
OVERDENSITY = 200.0
#: Msun/Mpc^3 at h = 1: 3 H0^2 / (8 pi G).
CRITICAL = 2.77536627e11


@dataclass(frozen=True)
class Cosmology:
    """Flat LCDM with a cosmological constant.

    Attributes
    ----------
    h, omega_m, omega_b, sigma8, n_s
        Parameters; by default those of Planck 2015 (arXiv:1502.01589) as in the PINOCCHIO runs of the tests.
    """

    h: float = 0.6774
    omega_m: float = 0.3089
    omega_b: float = 0.0486
    sigma8: float = 0.8159
    n_s: float = 0.9667

    @property
    def density(self) -> float:
        """Return the mean matter density in Msun/Mpc^3."""
        return CRITICAL * self.omega_m * self.h**2

    def expansion(self, z: Any) -> Any:
        """Compute H(z)/H0."""
        return np.sqrt(self.omega_m * (1 + z) ** 3 + 1 - self.omega_m)

    def hubble(self, z: Any) -> Any:
        """Compute H(z) in km/s/Mpc."""
        return 100 * self.h * self.expansion(z)

    @cached_property
    def _table(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        z = np.expm1(np.linspace(0, np.log(21), 4001))
        inverse = LIGHT / self.hubble(z)
        steps = np.diff(z) * (inverse[1:] + inverse[:-1]) / 2
        return z, np.concatenate([[0.0], np.cumsum(steps)])

    def distance(self, z: Any) -> Any:
        """Compute the comoving distance in Mpc to z < 20."""
        return np.interp(z, *self._table)

    def redshift(self, distance: Any) -> Any:
        """Compute the redshift at a comoving distance in Mpc."""
        z, chi = self._table
        return np.interp(distance, chi, z)

    @cached_property
    def _growth(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        z = np.expm1(np.linspace(0, np.log(21), 201))
        # Heath 1977: exact for matter and a cosmological constant.
        values = [
            self.expansion(x) * quad(lambda a: (a * self.expansion(1 / a - 1)) ** -3, 0, 1 / (1 + x))[0] for x in z
        ]
        return z, np.array(values) / values[0]

    def growth(self, z: Any) -> Any:
        """Compute the linear growth factor, 1 at z = 0."""
        return np.interp(z, *self._growth)

    def growth_rate(self, z: Any) -> Any:
        """Compute the growth rate f = dlnD/dlna as Om(z)^0.55 (Linder 2005, astro-ph/0507263)."""
        return (self.omega_m * (1 + z) ** 3 / self.expansion(z) ** 2) ** 0.55

    def power(self, k: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the linear P(k) in Mpc^3 at z = 0 for k > 0 in 1/Mpc (Eisenstein & Hu 1998, with baryons)."""
        return np.exp(np.interp(np.log(k), *_log_power(self)))

    def mass_function(
        self, z: float, model: str = "Watson_FoF"
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Compute masses (M,) in Msun, dn/dlnM (M,) in Mpc^-3 and sigma(M) (M,) at a redshift, by `hmf`.

        Parameters
        ----------
        z
            Redshift.
        model
            Name of a fitting function of `hmf`; Watson et al. 2013 (arXiv:1212.0095), friends of friends, by default.

        Raises
        ------
        ValueError
            If `hmf` has no such function.
        """
        return _at_redshift(self, float(z), model)


@lru_cache(maxsize=8)
def _log_power(cosmology: Cosmology) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    table = _mass_function(cosmology, "Watson_FoF")
    table.update(z=0.0)
    return np.log(table.k * cosmology.h), np.log(table.power / cosmology.h**3)


@lru_cache(maxsize=256)
def _at_redshift(
    cosmology: Cosmology, z: float, model: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    table = _mass_function(cosmology, model)
    # An update keeps all that does not depend on redshift, nearly all of the work.
    table.update(z=z)
    return table.m / cosmology.h, table.dndlnm * cosmology.h**3, table.sigma


@lru_cache(maxsize=8)
def _mass_function(cosmology: Cosmology, model: str) -> Any:
    import hmf
    from astropy.cosmology import FlatLambdaCDM

    names = {name for name in dir(hmf.mass_function.fitting_functions) if name[0].isupper()}
    if model not in names - {"FittingFunction", "SimDetails", "Union"}:
        raise ValueError(f'mass function "{model}": hmf knows {", ".join(sorted(names))}')
    background = FlatLambdaCDM(
        H0=100 * cosmology.h, Om0=cosmology.omega_m, Ob0=cosmology.omega_b, Tcmb0=2.7255, name="eorinfer"
    )
    return hmf.MassFunction(
        Mmin=8,
        Mmax=16,
        dlog10m=0.01,
        hmf_model=model,
        transfer_model="EH_BAO",
        cosmo_model=background,
        sigma_8=cosmology.sigma8,
        n=cosmology.n_s,
        lnk_min=-12,
        lnk_max=9,
    )


def tinker_bias(sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the linear bias of halos of variance sigma^2 (Tinker et al. 2010, arXiv:1001.3162, eq. 6, table 2)."""
    nu = COLLAPSE / sigma
    y = np.log10(OVERDENSITY)
    fade = np.exp(-((4 / y) ** 4))
    big_a, a = 1 + 0.24 * y * fade, 0.44 * y - 0.88
    big_c = 0.019 + 0.107 * y + 0.19 * fade
    return np.asarray(1 - big_a * nu**a / (nu**a + COLLAPSE**a) + 0.183 * nu**1.5 + big_c * nu**2.4)
