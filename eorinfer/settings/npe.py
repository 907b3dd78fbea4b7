"""Settings of neural posterior estimation: the tables ``[embedding]``, ``[flow]``, ``[training]``, ``[inference]``."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from eorinfer.settings.base import Settings
from simulators import Observable
from simulators.parts import is_own

#: Fewest samples of a posterior, for widths and a picture.
FEWEST_SAMPLES = 10

#: Estimators that sbi's `posterior_nn` builds by name and that are densities on the whole of R^P: not ``zuko_ncsf``,
#: which is one on a circle, nor those of mixed data (``mnle``, ``mnpe``) and of a trained transformer (``tabpfn``).
SBI_FLOWS = (
    *("zuko_nsf", "zuko_maf", "zuko_bpf", "zuko_gf", "zuko_naf", "zuko_nice", "zuko_sospf", "zuko_unaf"),
    *("mdn", "made", "maf", "maf_rqs", "nsf"),
)
#: Other kinds.
WITHOUT_SBI = ("auto", "none", "gaussian")
#: Flow that ``"auto"`` tries.
AUTO = "zuko_nsf"
#: Steps, epochs, and least and greatest number of networks by ``[training] effort``.
EFFORTS: dict[str, dict[str, int]] = {
    "quick": {"steps": 1000, "epochs": 60, "networks": 2, "most": 2},
    "default": {"steps": 3000, "epochs": 120, "networks": 3, "most": 3},
    "thorough": {"steps": 6000, "epochs": 120, "networks": 6, "most": 10},
}
#: Least size of a batch of data vectors that an emulator makes: they cost next to nothing.
VECTOR_BATCH = 256
#: Summaries of this package by name, and what makes each of an observable and ``[power_spectrum]``.
SUMMARIES = {
    "power": "eorinfer.summaries.power:build_power_spectrum",
    "joint-power": "eorinfer.summaries.power:build_joint_power_spectrum",
    "scattering": "eorinfer.summaries.scattering:build_scattering",
}


class EmbeddingSettings(Settings):
    """``[embedding]``: what turns a cube into features.

    Parameters
    ----------
    convolution
        Use the CNN on the image.
    network
        Your own network in place of that CNN, ``"module:Class"``: an `nn.Module` from (B, C, *cells) to
        (B, features), made by ``Class(shape, features, **options)``.
    options
        Keyword arguments of its constructor.
    summaries
        Summary statistics beside the image, in place of the two switches that follow: ``"power"``, ``"scattering"``,
        ``"joint-power"``, P(k) of the channels and of the sums of any two, or your own, ``"module:name"``.
    power_spectrum
        Use the logarithm of P(k) beside it.
    scattering
        Use scattering coefficients of the maps across the last axis too; needs kymatio.
    bins
        Bins of P(k) for the embedding, logarithmic between the limits of ``[power_spectrum]``.
    width
        Channels of each convolution of the CNN.
    redshifts
        ``"channels"``: the CNN sees the redshifts as channels of one cube;
        ``"volumes"``: each redshift goes through the same CNN on its own.
    features
        Length of the embedding; by default 4 for each parameter, at least 8.

    Examples
    --------
    >>> from eorinfer import EmbeddingSettings
    >>> EmbeddingSettings(scattering=True).all_summaries
    ('power', 'scattering')
    """

    convolution: bool = True
    network: str | None = None
    options: dict[str, Any] | None = None
    summaries: tuple[str, ...] | None = None
    power_spectrum: bool = True
    scattering: bool = False
    bins: PositiveInt = 16
    width: PositiveInt = 16
    redshifts: Literal["channels", "volumes"] = "channels"
    features: PositiveInt | None = None

    @field_validator("network")
    @classmethod
    def _is_a_class(cls, value: str | None) -> str | None:
        if value is not None and not is_own(value):
            raise ValueError(f'must be "module:Class", your own network (given: {value!r})')
        return value

    @field_validator("summaries")
    @classmethod
    def _are_known(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in value or ():
            if name not in SUMMARIES and not is_own(name):
                raise ValueError(f'"{name}" is not known: one of {_quoted(SUMMARIES)}, or "module:name" for your own')
        return value

    @model_validator(mode="after")
    def _only_together(self) -> "EmbeddingSettings":
        # Against the defaults: a run's own config.toml has every key.
        if self.summaries is not None and (not self.power_spectrum or self.scattering):
            raise ValueError("power_spectrum and scattering: summaries says it already; leave them out")
        if self.network is None and self.options is not None:
            raise ValueError('options: only with network = "module:Class"')
        if self.network is not None and (self.redshifts, self.width) != ("channels", 16):
            raise ValueError("width and redshifts are the built-in CNN's; give options = {...} to your own network")
        if not self.convolution and self.network is None and not self.all_summaries:
            raise ValueError('convolution = false leaves nothing to read: give summaries = ["power"], or others')
        return self

    @property
    def summaries_alone(self) -> bool:
        """Whether networks read nothing of a cube but its summaries."""
        return not self.convolution

    @property
    def all_summaries(self) -> tuple[str, ...]:
        """Names of all summaries, by whichever keys they are asked for."""
        if self.summaries is not None:
            return self.summaries
        return ("power",) * self.power_spectrum + ("scattering",) * self.scattering


class FlowSettings(Settings):
    """``[flow]``: what follows the truncated normal of a posterior network.

    Parameters
    ----------
    kind
        ``"auto"``: a flow, ``"zuko_nsf"``, where the rows that training holds out prefer it, else none;
        ``"none"``: the truncated normal alone; an estimator that sbi builds by name, see `SBI_FLOWS`;
        ``"gaussian"``: a Gaussian in theta with the network's mean and covariance, as in regression; or your own,
        ``"module:function"``.
    transforms
        Number of transforms.
    hidden
        Hidden layers of each transform's network; all of one width for the estimators without ``zuko_``. The flow of
        ``"auto"`` has at least 28 units for each parameter where it is trained on emulated rows.
    options
        Further keyword arguments of sbi's builder, or of your own function.

    Examples
    --------
    >>> from eorinfer import FlowSettings
    >>> FlowSettings(kind="zuko_maf").transforms
    2
    """

    kind: str = "auto"
    transforms: PositiveInt = 2
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 32)
    options: dict[str, Any] | None = None

    @field_validator("kind")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value == "zuko_ncsf":
            raise ValueError('"zuko_ncsf" is a density on a circle, parameters have a line; take "zuko_nsf"')
        if value not in (*SBI_FLOWS, *WITHOUT_SBI) and not is_own(value):
            known = _quoted((*SBI_FLOWS, *WITHOUT_SBI))
            raise ValueError(f'"{value}" is not known: one of {known}, or "module:function" for your own')
        return value

    @model_validator(mode="after")
    def _of_the_kind(self) -> "FlowSettings":
        if self.kind in WITHOUT_SBI and self.options is not None:
            raise ValueError(f'options: kind = "{self.kind}" takes none')
        if self.kind in SBI_FLOWS and not self.kind.startswith("zuko_") and len(set(self.hidden)) > 1:
            raise ValueError(f'hidden = {list(self.hidden)}: kind = "{self.kind}" has layers of one width')
        return self


class TrainingSettings(Settings):
    """``[training]``: one fit of embedding and flow.

    Parameters
    ----------
    effort
        ``"quick"``, ``"default"`` or ``"thorough"``: sets `steps`, `epochs` and `ensemble` where they are not given;
        see `EFFORTS`. ``"quick"`` also leaves emulated rows out.
    steps
        Largest number of optimiser steps of one network; three times as many on emulated rows.
    epochs
        Largest number of passes over the simulations: a network that sees few of them often learns them by heart.
    batch_size
        Simulations in a batch.
    learning_rate
        Peak of the one-cycle schedule.
    weight_decay
        Weight decay of AdamW.
    ensemble
        Number of networks, trained from different seeds; the posterior is their mean. By default two or three, as
        `effort` says; with ``"thorough"`` six, and up to ten where few simulations end each one early.
    validation_fraction
        Share of the realisations that each network holds out, another one each, so that all train some network. Half of
        these choose its weights and its form, the others say how often its intervals hold the truth.
    precision
        Lightning's name for the floating-point precision, e.g. ``"bf16-mixed"`` on a GPU.
    emulate
        Train once more on rows that an emulator makes of the simulations, and keep that where the rows that training
        holds out prefer it. With few simulations of many parameters it gains much. ``"vectors"``: for networks that
        read data vectors, or the summaries of cubes alone, where it costs little; ``"always"``: for those that read
        cubes too. Cubes are moved to the spectrum of another theta. ``"never"``.

    Examples
    --------
    >>> from eorinfer import TrainingSettings
    >>> TrainingSettings(steps=500, ensemble=1).batch_size
    64
    """

    effort: Literal["quick", "default", "thorough"] = "default"
    steps: PositiveInt = EFFORTS["default"]["steps"]
    epochs: PositiveInt = EFFORTS["default"]["epochs"]
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 1e-2
    weight_decay: float = Field(default=0.05, ge=0)
    ensemble: PositiveInt | None = None
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.9)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    emulate: Literal["vectors", "always", "never"] = "vectors"

    @model_validator(mode="before")
    @classmethod
    def _of_effort(cls, keys: Any) -> Any:
        if not isinstance(keys, Mapping):
            return keys
        effort = str(keys.get("effort"))
        of_effort = EFFORTS.get(effort, {})
        quick = {"emulate": "never"} if effort == "quick" else {}
        return {name: of_effort[name] for name in ("steps", "epochs") if of_effort} | quick | dict(keys)

    def emulated_batch(self, observable: Observable, embedding: EmbeddingSettings) -> int:
        """Give the least size of a batch of emulated rows; 0 where none are tried."""
        vectors = len(observable.cells) == 1 or embedding.summaries_alone
        if self.emulate == "never" or not (vectors or self.emulate == "always"):
            return 0
        return VECTOR_BATCH if vectors else 1

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Files and hashes of older versions have no such keys.
        content: dict[str, Any] = handler(self)
        newer = [("effort", "default")] + [("emulate", "vectors")] * (self.effort != "quick")
        return {name: value for name, value in content.items() if (name, value) not in newer}


class InferenceSettings(Settings):
    """``[inference]``: method and rounds.

    Parameters
    ----------
    method
        ``"npe"``: sequential rounds of neural posterior estimation; ``"image-flow"``: the likelihood of a flow on
        the images, see ``[image_flow]``, trained on the first round and on all later rounds that were simulated;
        ``"combined"``: NPE of one round times the likelihood of a diffusion, by what each is worth on held-out images.
    rounds
        Number of simulations in each round. The first round draws from the prior, later ones from the `proposal`.
    proposal
        ``"truncated"``: the prior, cut to the region of the last round's posterior, which keeps the plain loss;
        ``"posterior"``: the last round's posterior itself, with the atomic loss of NPE-C.
    atoms
        Number of candidates in the atomic loss.
    truncation
        Posterior mass that a truncation leaves out.
    stop_at
        A truncated round from the third on, and all after it, is left out where its share of the prior would be more
        than this share of the round's before: its truncation no longer falls. 1 for never.
    samples
        Number of posterior samples to write, at least ten, for widths and a picture.
    predictive
        Number of simulations at posterior samples, for the posterior-predictive check; 0 for none.
    targets
        What is inferred in place of the simulator's parameters: some of them, means of arrays that the bank keeps
        (``"optical_depth"``), or their values at a place (``"global_neutral_fraction@7.5"``). Their prior is what the
        simulations give them. Only with one round of NPE.
    """

    method: Literal["npe", "image-flow", "combined"] = "npe"
    rounds: tuple[PositiveInt, ...] = Field(min_length=1)
    proposal: Literal["truncated", "posterior"] = "truncated"
    atoms: int = Field(default=10, ge=2)
    truncation: float = Field(default=1e-3, gt=0, lt=0.1)
    stop_at: float = Field(default=0.9, gt=0, le=1)
    samples: int = Field(default=10000, ge=FEWEST_SAMPLES)
    predictive: int = Field(default=32, ge=0)
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _targets_of_one_round(self) -> "InferenceSettings":
        if self.targets is not None and (self.method != "npe" or len(self.rounds) > 1):
            raise ValueError('targets: only with method = "npe" and one round, rounds = [N]')
        if self.method == "combined" and len(self.rounds) > 1:
            raise ValueError(f'rounds = {list(self.rounds)}: method = "combined" takes one round, rounds = [N]')
        return self


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
