"""The atomic loss: sbi's own, one pass of the embedding, and a known optimum."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sbi.inference import NPE_C
from sbi.neural_nets import posterior_nn
from sbi.utils import BoxUniform
from torch import Tensor, nn

from eorinfer.npe.atomic import atomic_loss

PRIOR = BoxUniform(-2 * torch.ones(2), 2 * torch.ones(2))


class Counting(nn.Linear):
    """An embedding that counts the rows it has seen."""

    seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return super().forward(x)


def test_it_is_sbis_loss_with_one_pass_of_the_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # sbi's trainer writes a log beside it
    torch.manual_seed(1)
    embedding = Counting(3, 4)
    build = posterior_nn("zuko_nsf", z_score_theta="none", z_score_x="none", embedding_net=embedding)
    theta, x = PRIOR.sample((12,)), torch.randn(12, 3)
    trainer = NPE_C(PRIOR, density_estimator=build, show_progress_bars=False)
    trainer._neural_net = build(theta, x)
    # With all of the batch as candidates there is no choice left, so that both must agree.
    trainer._num_atoms, trainer._use_combined_loss = 12, False
    expected = -trainer._log_prob_proposal_posterior_atomic(theta, x, torch.ones(12, 1))
    net = trainer._neural_net
    before = net._embedding_net.seen
    context = net._embedding_net(x)
    found = atomic_loss(
        lambda t: net.net(context).log_prob(t),
        theta,
        lambda t: PRIOR.log_prob(t.reshape(-1, 2)).reshape(t.shape[:2]),
        12,
        torch.Generator().manual_seed(2),
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert net._embedding_net.seen - before == 12


@pytest.mark.job
def test_the_posterior_is_better_than_one_that_is_off() -> None:
    """Theta from a proposal that is not the prior; the flat prior's posterior is known."""
    rng = np.random.default_rng(3)
    theta = torch.from_numpy(rng.normal(0.5, 0.3, (4000, 1)))
    x = theta + 0.2 * torch.from_numpy(rng.standard_normal((4000, 1)))

    def loss(shift: float, width: float) -> float:
        def log_prob(t: Tensor) -> Tensor:
            return (-0.5 * ((t - x - shift) / width) ** 2).squeeze(-1)

        return float(atomic_loss(log_prob, theta, 0.0, 10, torch.Generator().manual_seed(1)).mean())

    best = loss(0.0, 0.2)
    for wrong in ((0.1, 0.2), (-0.1, 0.2), (0.0, 0.15), (0.0, 0.27)):
        assert loss(*wrong) > best + 0.005, wrong


def test_a_choice_needs_two() -> None:
    with pytest.raises(ValueError, match="1 atoms and 4 rows"):
        atomic_loss(lambda t: t.sum(-1), torch.zeros(4, 2), 0.0, 1, torch.Generator())
