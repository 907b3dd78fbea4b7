"""A trained image flow: p(image | condition) with all that is needed to use it again, as a folder without pickle."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.core.arrays import as_theta, state_hash, white_noise
from eorinfer.core.errors import InputError
from eorinfer.core.likelihood import LogLikelihood
from eorinfer.core.prior import Prior
from eorinfer.cubes.observation import Observation
from eorinfer.imageflow.alarm import KnownImages
from eorinfer.imageflow.conditions import line_of_sight
from eorinfer.imageflow.density import ImageDensity
from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.interpolated import VERSION, InterpolatedLikelihood
from eorinfer.imageflow.isotropic import IsotropicFlow
from eorinfer.imageflow.multiscale import MultiscaleFlow
from eorinfer.imageflow.scaled import ScaledDensity
from eorinfer.imageflow.whitening import whitening_of
from eorinfer.settings.imageflow import ImageFlowSettings
from eorinfer.settings.survey import SkaLow, SurveySettings
from eorinfer.survey import build_survey
from eorinfer.training.bundle import BundleKind
from eorinfer.training.declared import no_larger_than
from simulators import Observable

#: Number of cells, of all images together, that pass the flow at once.
CELLS = 2**20


@dataclass(frozen=True)
class ImageFlow:
    """Trained density p(x | y) of images x under conditions y.

    Attributes
    ----------
    conditions
        The P conditions y and the range that training saw: parameters of the simulator, or neutral fractions.
    observable
        Shape, unit and axes of x.
    survey
        Survey of the training images.
    settings
        ``[image_flow]``.
    network
        Normalizing flow.
    dequantisation
        Standard deviation of the white noise added to every image, in its unit.
    facts
        Free notes: bank fingerprint, losses.
    known
        Images with which observations are compared; None for flows saved by older versions.
    weights
        What each term of ln p counts for in posteriors, see `weights_of_images`; None: one.

    Examples
    --------
    >>> from eorinfer import ImageFlow
    >>> flow = ImageFlow.load("runs/gaussian/field")
    >>> flow.conditions.names
    ['log_amplitude', 'slope']
    """

    bundle: ClassVar[BundleKind] = BundleKind("image flow", "field.json", 1)

    conditions: Prior
    observable: Observable
    survey: SurveySettings
    settings: ImageFlowSettings
    network: ImageDensity
    dequantisation: float
    facts: dict[str, Any] = field(default_factory=dict)
    known: KnownImages | None = None
    weights: tuple[float, ...] | None = None

    def log_prob(self, observation: Observation, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute ln p(x | y) in nats of one image, for conditions y (n, P): (n,).

        Raises
        ------
        InputError
            If the image's shape, unit, axes or cells differ from training, or a value is not finite.
        """
        return self._direct(self.prepared(observation))(y)

    def likelihood(self, observation: Observation) -> LogLikelihood:
        """Return ln p(x | y) of one image as a function of y (n, P); see `log_prob`.

        Of a diffusion it is interpolated, see `InterpolatedLikelihood`.
        """
        return self.likelihood_of(self.prepared(observation))

    def likelihood_of(self, x: Tensor) -> LogLikelihood:
        """Return the `likelihood` of an image x (1, C, *cells) that has been prepared."""
        if isinstance(self.network, DiffusionFlow):
            weights = None if self.weights is None else np.array(self.weights)
            return InterpolatedLikelihood(self.network, x, self.conditions, weights)
        return self._direct(x)

    def _direct(self, x: Tensor) -> LogLikelihood:
        size = max(1, CELLS // x[0].numel())

        def log_likelihood(y: NDArray[np.float64]) -> NDArray[np.float64]:
            with torch.no_grad():
                logs = [
                    self.network.log_prob(x.expand(len(batch), *x.shape[1:]), batch)
                    for batch in as_theta(y).split(size)
                ]
            return torch.cat(logs).numpy()

        return log_likelihood

    def prepared(self, observation: Observation) -> Tensor:
        """Return the image (1, C, *cells) with the noise that dequantises it, the same at each call."""
        self.check(observation)
        seed = int(observation.digest[:8], 16)
        return dequantised(
            torch.from_numpy(observation.values[None]), self.dequantisation, torch.Generator().manual_seed(seed)
        )

    def check(self, observation: Observation) -> None:
        """Check that an observation is a whole image like those of the training.

        Raises
        ------
        InputError
            If shape, unit or axes do not fit, or cells are masked, which would count as zeros.
        """
        observation.check(self.observable, "observation")
        if observation.mask is not None and (masked := int(observation.mask.sum())):
            raise InputError(
                f"observation: {masked} cells are masked, and an image flow needs whole images; NPE does not, trained "
                "with the same [observation] mask"
            )

    def outside(self, y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Mark the conditions y (n, P) outside the range of training: (n,)."""
        return ~self.conditions.contains(y)

    def sample(self, y: NDArray[np.float64], seed: int) -> NDArray[np.float32]:
        """Draw one image for each condition y (n, P), dequantisation noise included: (n, C, *cells)."""
        generator = torch.Generator().manual_seed(seed)
        size = max(1, CELLS // int(np.prod(self.observable.shape)))
        with torch.no_grad():
            images = [self.network.sample(batch, generator) for batch in as_theta(y).split(size)]
        return torch.cat(images).numpy()

    def key(self, observation: Observation) -> str:
        """Hash the likelihood: weights and data, and what a diffusion's terms count for."""
        data = self.prepared(observation).numpy().tobytes()
        if isinstance(self.network, DiffusionFlow):
            data += f"{VERSION} {self.weights}".encode()
        return state_hash(data, self.network.state_dict().items())

    def save(self, folder: Path) -> None:
        """Write ``field.json``, ``weights.safetensors`` and, unless `known` is None, ``known.safetensors``, whole."""
        description: dict[str, Any] = {
            "conditions": self.conditions.to_json(),
            "observable": asdict(self.observable),
            "survey": self.survey.model_dump(mode="json"),
            "field": self.settings.model_dump(mode="json"),
            "dequantisation": self.dequantisation,
            "facts": self.facts,
        }
        if isinstance(self.network, ScaledDensity):
            description["scale"] = self.network.scale
        if isinstance(self.network, DiffusionFlow):
            description["kept_cells"] = self.network.inner[1:]
            description["own_power"] = self.network.map_power is not None
        if self.weights is not None:
            description["weights"] = list(self.weights)
        known = None
        if self.known is not None:
            known = {f.name: torch.from_numpy(getattr(self.known, f.name)) for f in fields(self.known)}
        self.bundle.write(folder, description, self.network.state_dict(), known=known)

    @classmethod
    def load(cls, folder: Path) -> "ImageFlow":
        """Read what `save` wrote, on the CPU.

        Raises
        ------
        InputError
            If the folder has no image flow of this format.
        """
        with cls.bundle.reading(folder) as bundle:
            conditions = Prior.from_json(bundle["conditions"])
            observable, weights = bundle.observable, bundle.weights
            settings = ImageFlowSettings(**bundle["field"])
            with no_larger_than(weights, {"field": bundle["field"]}):
                network = build_network(settings, bundle.survey, observable, conditions)
                if "kept_cells" in bundle.description and isinstance(network, DiffusionFlow):
                    network.keep(tuple(bundle["kept_cells"]), own_power=bundle.description.get("own_power", False))
            if "scale" in bundle.description:
                network = ScaledDensity(network, bundle["scale"])
            network.load_state_dict(weights)
            known = bundle.tensors("known")
            return cls(
                conditions,
                observable,
                bundle.survey,
                settings,
                network.eval(),
                bundle["dequantisation"],
                bundle["facts"],
                None if known is None else KnownImages(**{name: tensor.numpy() for name, tensor in known.items()}),
                tuple(bundle["weights"]) if "weights" in bundle.description else None,
            )


def build_network(
    settings: ImageFlowSettings, survey: SurveySettings, observable: Observable, conditions: Prior
) -> ImageDensity:
    """Build an untrained flow of ``[image_flow] kind``; torch's global random state is restored."""
    isotropic: dict[str, Any] = {
        "convolutions": settings.convolutions,
        "k_knots": settings.k_knots,
        "knots": settings.knots,
        "hidden": settings.hidden,
        "line_of_sight": line_of_sight(settings, survey, observable),
    }
    multiscale = {"width": settings.width, "depth": settings.depth, "components": settings.components}
    low, high = (torch.from_numpy(bound) for bound in (conditions.low, conditions.high))
    with torch.random.fork_rng(devices=[]):
        if settings.kind == "diffusion":
            return _build_diffusion(settings, survey, observable, low, high)
        if settings.kind == "multiscale":
            return MultiscaleFlow(observable.shape, observable.cell_size, low, high, **multiscale, **isotropic)
        return IsotropicFlow(observable.shape, observable.cell_size, low, high, **isotropic)


def _build_diffusion(
    settings: ImageFlowSettings, survey: SurveySettings, observable: Observable, low: Tensor, high: Tensor
) -> DiffusionFlow:
    """Build a diffusion; where the image is a whole cube of SKA-Low, with a whitening of its noise."""
    whitening = None
    if isinstance(survey, SkaLow) and settings.image == "whole":
        whitening = whitening_of(build_survey(survey, observable))
    return DiffusionFlow(
        observable.shape,
        observable.cell_size,
        low,
        high,
        width=settings.width,
        k_knots=settings.k_knots,
        hidden=settings.hidden,
        line_of_sight=line_of_sight(settings, survey, observable),
        whitening=whitening,
    )


def dequantised(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add white noise of standard deviation `sigma`, so that equal values have a density."""
    if not sigma:
        return images
    return images + sigma * white_noise(images, generator)
