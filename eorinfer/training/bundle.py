"""Bundles: a trained thing as a folder of JSON and safetensors, versioned, written whole and without pickle."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from eorinfer.bank.description import observable_from_json, package_versions
from eorinfer.core.errors import InputError
from eorinfer.core.files import elsewhere, read_versioned, whole_folder, write_json
from eorinfer.core.reading import ForeignFileError, refuse_foreign, refuse_surroundings
from eorinfer.settings.survey import SurveySettings
from eorinfer.training.declared import check_observable
from simulators import Observable

WEIGHTS = "weights"
#: Errors of a folder that is not what was written; ValueError includes pydantic's. RuntimeError includes a recursion
#: without end, and memory that torch does not get.
UNREADABLE = (
    *(KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError, RuntimeError),
    *(MemoryError, SafetensorError, ForeignFileError, OSError),
)
#: Characters of such an error that are shown.
LONGEST = 600


@dataclass(frozen=True)
class Bundle:
    """A bundle that is being read.

    Attributes
    ----------
    folder
        Folder of the bundle.
    description
        Content of its JSON file.
    """

    folder: Path
    description: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.description[key]

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Weights by name, on the CPU."""
        return self._load(WEIGHTS)

    def member(self, number: int) -> dict[str, Tensor]:
        """Weights of one network of an ensemble, as `weights_of_members` names them."""
        prefix = f"{number}."
        return {name.removeprefix(prefix): x for name, x in self.weights.items() if name.startswith(prefix)}

    def tensors(self, name: str) -> dict[str, Tensor] | None:
        """Tensors of ``NAME.safetensors``, on the CPU; None if the bundle has none."""
        return self._load(name) if os.path.lexists(self._file(name)) else None

    @property
    def observable(self) -> Observable:
        """Description of the cubes under the key ``observable``."""
        return check_observable(observable_from_json(self["observable"]))

    @property
    def survey(self) -> SurveySettings:
        """Settings under the key ``survey``."""
        settings: SurveySettings = TypeAdapter(SurveySettings).validate_python(self["survey"])
        return settings

    def _load(self, name: str) -> dict[str, Tensor]:
        refuse_foreign(self._file(name), links=True)  # opening a pipe would wait for ever
        return load_file(self._file(name))

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def weights_of_members(networks: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Give the weights of all networks of an ensemble by name, as a bundle keeps them."""
    return {f"{i}.{name}": value for i, network in enumerate(networks) for name, value in network.state_dict().items()}


@dataclass(frozen=True)
class BundleKind:
    """A kind of bundle: how its folder is written, and how it is recognised.

    Attributes
    ----------
    noun
        Name of the trained thing in messages.
    file
        Name of the JSON file.
    format
        Version of the format, the key ``format`` of the JSON file.
    """

    noun: str
    file: str
    format: int

    def is_in(self, folder: Path) -> bool:
        """Tell whether a folder has a bundle of this kind."""
        return (folder / self.file).is_file()

    @contextmanager
    def writing(
        self,
        folder: Path,
        description: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        **more: Mapping[str, Tensor] | None,
    ) -> Iterator[Path]:
        """Write a bundle whole; yield its temporary folder for what else belongs into it.

        Parameters
        ----------
        folder
            Folder of the bundle; an older bundle there is replaced.
        description
            Content of the JSON file, without format and package versions.
        weights
            State of the networks.
        more
            Other tensors, each group in a ``.safetensors`` file of its name; None for none.
        """
        with whole_folder(Path(folder)) as temporary:
            for name, tensors in ({WEIGHTS: weights} | more).items():
                if tensors is not None:
                    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
                    # By Python's own calls, whose errors name a full disk by its number.
                    (temporary / f"{name}.safetensors").write_bytes(save(contiguous))
            content = {"format": self.format, **description, "packages": package_versions()}
            write_json(temporary / self.file, content)
            yield temporary

    def write(
        self,
        folder: Path,
        description: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        **more: Mapping[str, Tensor] | None,
    ) -> None:
        """Write a bundle that consists of JSON and tensors alone; parameters as for `writing`."""
        with self.writing(folder, description, weights, **more):
            pass

    def facts(self, folder: Path) -> dict[str, Any]:
        """Read the notes under the key ``facts`` alone; errors as in `reading`."""
        with self.reading(folder) as bundle:
            facts: dict[str, Any] = bundle["facts"]
        return facts

    @contextmanager
    def reading(self, folder: Path) -> Iterator[Bundle]:
        """Open a bundle; what goes wrong while it is read becomes an error that names the folder.

        Raises
        ------
        InputError
            If the folder has no such bundle, one of another format, or one that is damaged.
        """
        folder = Path(folder)
        if not self.is_in(folder):
            raise InputError(f"{folder}: no {self.noun} here ({self.file} is missing){elsewhere(folder, self.file)}")
        content = read_versioned(folder / self.file, self.format)
        try:
            yield Bundle(folder, content)
        except UNREADABLE as error:
            words = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, OSError):
                refuse_surroundings(folder, error)
                words = f"{error.strerror or words}: {error.filename or folder}"
            lacks = f", which {self.file} lacks" if isinstance(error, KeyError) else ""
            raise InputError(f"{folder}: the {self.noun} cannot be read ({words[:LONGEST]}){lacks}") from error
