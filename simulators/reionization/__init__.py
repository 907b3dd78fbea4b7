"""21cm images of the Epoch of Reionization from 21cmFAST: coeval cubes and light-cones.

21cmFAST: Mesinger, Furlanetto & Cen 2011 (arXiv 1003.3878) and Murray et al. 2020
(JOSS 5, 2582). The galaxies are parametrised as in Park et al. 2019 (arXiv 1809.08995), or
have one ionising efficiency (Greig & Mesinger 2015, arXiv 1501.06576).
Importing this package loads neither 21cmFAST nor astropy.
"""

from simulators.reionization.coeval import Coeval
from simulators.reionization.lightcone import LightCone
from simulators.reionization.parameters import CONSTANT_EFFICIENCY, PARAMETERS

__all__ = ["CONSTANT_EFFICIENCY", "PARAMETERS", "Coeval", "LightCone"]
