"""Rows whose summaries are computed once, for networks that read nothing else of a cube.

Noise and P(k) of cubes take many times as long as a step of a network that reads P(k) alone. So each row is
observed several times before the training, and every step takes one of these observations at random.
"""

from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from eorinfer.core.files import whole_file
from eorinfer.core.progress import Progress, Silent
from eorinfer.npe.task import PosteriorTask
from eorinfer.training.data import Batches, loader

#: Summaries of observed cubes that are kept of one set of rows, about.
MOST = 131_072
#: Cubes at once.
BATCH = 64


class SummarisedTask(PosteriorTask):
    """The training task of a network whose rows are `Summarised`."""

    def features(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Features (B, F) of one of the draws of each row, of scaled summaries (B, draws, length)."""
        draw = torch.randint(rows.shape[1], (len(rows),), generator=generator, device=rows.device)
        features: Tensor = self.network.embedding.of_summaries(rows[torch.arange(len(rows)), draw])
        return features


class Summarised(Batches):
    """Theta, and scaled summaries of several observations of the same clean cube.

    Parameters
    ----------
    rows
        Theta and clean cubes, for their names.
    theta, summaries
        (n, P) and (n, draws, length).
    """

    def __init__(self, rows: Batches, theta: Tensor, summaries: Tensor) -> None:
        self._rows, self.theta, self.summaries = rows, theta, summaries

    def __len__(self) -> int:
        return len(self.theta)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Theta (B, P) and scaled summaries (B, draws, length)."""
        return self.theta[indices], self.summaries[indices]

    def row_names(self, indices: list[int]) -> list[str]:
        """Name rows as those of the cubes."""
        return self._rows.row_names(indices)


def reads_summaries(task: PosteriorTask) -> bool:
    """Whether cubes of a training are summarised before it; of data vectors, noise is as cheap as a step."""
    return len(task.symmetry.periodic) > 1 and task.network.embedding.learns_from_summaries


def draws_of(rows: int, passes: int) -> int:
    """Number of times that each of some rows is observed, for a training of some passes over them."""
    return max(1, min(passes, MOST // rows))


@torch.no_grad()
def summarised_rows(
    task: PosteriorTask,
    rows: Batches,
    draws: int,
    *,
    file: Path,
    seed: int,
    title: str,
    progress: Progress | None = None,
) -> Summarised:
    """Observe each row several times and summarise what is seen.

    Parameters
    ----------
    task
        Its survey observes; its network's embedding, whose scalings are fitted, summarises.
    rows
        Theta (B, P) and clean cubes (B, C, *cells).
    draws
        Observations of each row.
    file
        File for the result, which is taken from there if a training goes on.
    seed
        Seed of noise and symmetries.
    title, progress
        Name of the bar, and what receives it.
    """
    with suppress(FileNotFoundError, SafetensorError):  # a damaged one is made again
        kept = load_file(file)
        return Summarised(rows, kept["theta"], kept["summaries"])
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    generator = torch.Generator(device).manual_seed(seed)
    task.to(device)
    theta, summaries = torch.empty(0), torch.empty(0)
    with (progress or Silent()).bar(title, -(-len(rows) // BATCH)) as advance:
        for place, (batch, clean) in enumerate(loader(rows, BATCH)):
            part = slice(BATCH * place, BATCH * place + len(batch))
            for draw in range(draws):
                read = task.network.embedding.summarise(task.observe(clean.to(device), generator))
                if not len(summaries):
                    # In one piece: kept by the batch, they would lie between freed cubes and pin these in memory.
                    theta = batch.new_empty(len(rows), *batch.shape[1:])
                    summaries = torch.empty(len(rows), draws, read.shape[1])
                summaries[part, draw] = read.cpu()
            theta[part] = batch
            advance(1, "")
    task.cpu()
    made = Summarised(rows, theta, summaries)
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as temporary:
        temporary.write_bytes(save({"theta": made.theta, "summaries": made.summaries}))
    return made
