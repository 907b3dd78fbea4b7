"""Seeds of everything random, by named streams.

Every random step takes its seed from a root and a stream. The root is the seed of the run, of one piece of work, or of
one item of that work. Two seeds differ where the root, any number below it, or the count of these numbers differs. So
the streams of one root must differ among themselves, and each root has an enum of its own.

The numbers are part of every kept result: changing one changes what a run draws. That is why the following repetitions
stay. They do no harm, since each pair feeds different generators or different work:

- `RoundStream.PROPOSAL` and ``TRAINING`` give the seeds of realisations 0 and 1 of the same round. The streams feed
  torch, the realisations feed the simulator.
- `SeparationStream.TRAINING` has the number of `RunStream.CONTEST_OBSERVATION`. The former trains a separator, the
  latter draws posterior samples. (``MAPS`` shares its number with ``CONTEST_SAMPLES``, which always has an index.)
"""

from enum import IntEnum, unique

import numpy as np

from eorinfer.core.errors import InputError
from simulators.base import derived_seed

#: Number of the round that draws from the prior. Rows of round 0 belong to no round; nothing is trained on them.
PRIOR_ROUND = 1


@unique
class RunStream(IntEnum):
    """Streams of a run outside its rounds; the root is the run's seed."""

    OBSERVATION = 1
    OBSERVATION_NOISE = 2
    NPE_SAMPLES = 3
    PREDICTIVE = 4
    EMULATOR = 5
    MCMC = 6
    PREDICTIVE_NOISE = 7
    TRUTHS = 8
    TRUTHS_NOISE = 9
    VALIDATION_SAMPLES = 10
    CALIBRATION = 11
    TRUNCATION_POOL = 12
    EXACT_REFERENCE = 13
    POWER_SPECTRUM_REFERENCE = 14
    IMAGE_FLOW = 15
    IMAGE_FLOW_SAMPLES = 16
    NEURAL_LIKELIHOOD = 18
    CONTEST_SCORES = 19
    CONTEST_SAMPLES = 20
    CONTEST_OBSERVATION = 21
    CONTEST_TABLES = 22
    LOOP_REALISATION = 23
    LOOP_CHAIN = 24
    LOOP_START = 25
    LOOP_NOISE = 26
    LOOP_EMULATED_CHAIN = 27
    IMAGE_FLOW_VALIDATION = 28
    IMAGE_FLOW_CHECK = 29
    LOCAL_SAMPLES = 30
    LOCAL_CALIBRATION = 31
    COMBINED = 32
    COMBINED_NOISE = 33
    COMBINED_SAMPLES = 34
    COMBINED_VALIDATION = 35
    SPECTRUM_NETWORK = 36


@unique
class SeparationStream(IntEnum):
    """Streams of a line separation; the root is the config's seed."""

    MAPS = 20
    TRAINING = 21


@unique
class RoundStream(IntEnum):
    """Streams of one round; the root is the run's seed."""

    PROPOSAL = 0
    TRAINING = 1


@unique
class StudyStream(IntEnum):
    """Streams of the studies of an image flow; the root is the seed given to the study."""

    FLOW_IMAGES = 18
    HELD_OUT = 19
    HELD_OUT_NOISE = 20
    SIMULATED_NOISE = 21
    SIMULATED_THETA = 22
    SIMULATIONS = 23
    HELD_OUT_CHANGE = 24
    POSTERIORS = 25
    EQUAL_POWER_PAIRS = 26
    EMULATOR = 27
    MEASURED_NOISE = 28


@unique
class ImageFlowStream(IntEnum):
    """Streams of the training of an image flow; the root is the seed of `RunStream.IMAGE_FLOW`."""

    START = 1
    STAGE = 2
    KNOWN_IMAGES = 3
    WEIGHTS = 4


@unique
class WorkStream(IntEnum):
    """Streams of one fit, check or score; the root is the seed given to it."""

    VALIDATION_NOISE = 2
    SEPARATOR_SCALING = 3
    SEPARATION_SCORES = 4
    SEPARATOR_RESIDUALS = 5
    SEPARATOR_CORRECTION = 6
    #: Its root is the seed of a draw of lines: how what is left over is shared among them.
    DRAW_CORRECTION = 7
    SUMMARY_NOISE = 8
    CHECK_NOISE = 0x5EE
    HELD_OUT_NOISE = 0x5EEC
    #: Its root is the seed of a realisation: it decides whether that is trained on or held out.
    SPLIT = 0x5EED


def run_seed(seed: int, stream: RunStream | SeparationStream, *index: int) -> int:
    """Return the seed of a step of a run.

    Parameters
    ----------
    seed
        Seed of the run.
    stream
        Stream of the step.
    index
        Number of the attempt, the truth or the batch, where a step has several.
    """
    return derived_seed(seed, 0, stream, *index)


def run_rng(seed: int, stream: RunStream, *index: int) -> np.random.Generator:
    """Return the NumPy generator of a step of a run; parameters as of `run_seed`."""
    return np.random.default_rng([seed, 0, stream, *index])


def round_seed(seed: int, number: int, stream: RoundStream) -> int:
    """Return the seed of a step of round `number` of the run whose seed is given."""
    return derived_seed(seed, number, stream)


def round_rng(seed: int, number: int, *index: int) -> np.random.Generator:
    """Return the NumPy generator that draws theta of round `number`, or of its part with this index."""
    return np.random.default_rng([seed, number, *index])


def realisation_seed(seed: int, number: int, realisation: int) -> int:
    """Return the simulator's seed for a realisation of round `number`."""
    return derived_seed(seed, number, realisation)


def stream_seed(seed: int, stream: IntEnum, *index: int) -> int:
    """Return the seed of a stream inside one study or piece of work, whose own seed is given."""
    return derived_seed(seed, stream, *index)


def stream_rng(seed: int, stream: IntEnum) -> np.random.Generator:
    """Return the NumPy generator of a stream inside one study, whose own seed is given."""
    return np.random.default_rng([seed, stream])


def seed_of(given: int | None) -> int:
    """Return the seed that a caller gave, or another one at every call for None.

    Raises
    ------
    InputError
        If it is no whole number that random generators take.
    """
    if given is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or not 0 <= given < 2**32:
        # torch's generators take no more bits: a larger seed would be one of these again
        raise InputError(f"seed = {given!r}: must be a whole number, 0 or more and below 2^32")
    return int(given)


def item_seed(seed: int, item: int) -> int:
    """Return the seed of an item: a member of an ensemble, a fold, a truth, a draw or a mock."""
    return derived_seed(seed, item)


def second_item_seed(seed: int, item: int) -> int:
    """Return a second seed of an item: noise of an epoch or a mock, the fit of a member that `item_seed` starts."""
    return derived_seed(seed, item, 1)
