"""Names of worlds in the tables of a config."""

from eorinfer.settings.tables import Tables
from simulators import Simulator
from simulators.worlds import worlds_of

#: Name among ``[inference] targets`` of the world, whose odds are inferred.
WORLD_TARGET = "world"


def check_worlds(tables: Tables, simulator: Simulator) -> None:
    """Refuse names of worlds that the simulator does not have.

    Raises
    ------
    ValueError
        Naming the key and the worlds that there are.
    """
    observation, validation = tables.observation, tables.validation
    named = [("[observation] world", name) for name in [observation.world] if name is not None]
    named += [("[validation] worlds", name) for name in validation.worlds or ()]
    worlds = worlds_of(simulator)
    if WORLD_TARGET in (tables.inference.targets or ()) and (worlds is None or len(worlds.trained) < 2):
        raise ValueError(f'[inference] targets: "{WORLD_TARGET}" needs two or more [simulator] worlds to train on')
    for key, name in named:
        if worlds is None:
            raise ValueError(f'{key}: "{name}": [simulator] has no worlds = [{{}}, {{ name = "{name}", ... }}]')
        try:
            worlds.number(name)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    if observation.world is not None and observation.theta is None:
        raise ValueError("[observation] world: only for a mock, with theta")
