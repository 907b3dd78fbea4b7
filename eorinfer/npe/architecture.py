"""What a posterior's networks are built from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eorinfer.core.own import own_digests
from eorinfer.core.prior import Prior
from eorinfer.npe.density import ThetaDensity
from eorinfer.npe.network import PosteriorNetwork
from eorinfer.npe.regression import RegressionNetwork
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings, FlowSettings
from eorinfer.training.bundle import Bundle
from simulators import Observable


@dataclass(frozen=True)
class Architecture:
    """Settings that a network is built from, apart from prior and observable.

    Attributes
    ----------
    embedding, flow, power_spectrum
        Tables of the config.
    beside
        Folder of a user's own modules that they name; without it these are on ``sys.path``.

    Examples
    --------
    >>> from eorinfer import Architecture, EmbeddingSettings, FlowSettings, PowerSpectrumSettings
    >>> small = Architecture(EmbeddingSettings(width=4), FlowSettings(transforms=1), PowerSpectrumSettings(bins=3))
    >>> small.embedding.width
    4
    """

    embedding: EmbeddingSettings
    flow: FlowSettings
    power_spectrum: PowerSpectrumSettings
    beside: Path | None = field(default=None, compare=False)

    def build(self, prior: Prior, observable: Observable) -> ThetaDensity:
        """Build a fresh network; its weights come from torch's global random state."""
        if self.flow.kind == "gaussian":
            return RegressionNetwork(prior, observable, self.embedding, self.power_spectrum, self.beside)
        return PosteriorNetwork(prior, observable, self.embedding, self.flow, self.power_spectrum, self.beside)

    def tables(self) -> dict[str, dict[str, Any]]:
        """Give the tables for JSON, by name."""
        return {name: getattr(self, name).model_dump(mode="json") for name in ("embedding", "flow", "power_spectrum")}

    @classmethod
    def from_tables(cls, tables: Bundle, beside: Path | None) -> "Architecture":
        """Read what `tables` gave."""
        return cls(
            EmbeddingSettings(**tables["embedding"]),
            FlowSettings(**tables["flow"]),
            PowerSpectrumSettings(**tables["power_spectrum"]),
            beside,
        )

    def own_digests(self) -> dict[str, str]:
        """Hash of the source of each of the user's own parts, by ``"module:name"``."""
        tables = {"embedding": self.embedding.model_dump(), "flow": self.flow.model_dump()}
        return own_digests(tables, self.beside, ("embedding", "flow"))
