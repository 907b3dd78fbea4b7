"""Every density that sbi builds by name: normalised, sampled, the same after a round trip, its options heeded."""

import pytest
import torch

from eorinfer.networks.density import build_flow
from eorinfer.settings.npe import SBI_FLOWS, FlowSettings


def settings(kind: str, **options: object) -> FlowSettings:
    return FlowSettings(kind=kind, transforms=1, hidden=(8, 8), options=options or None)


@pytest.mark.filterwarnings("ignore:In one-dimensional output space")
@pytest.mark.parametrize("kind", SBI_FLOWS)
@torch.no_grad()
def test_the_density_of_one_number_integrates_to_one(kind: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        flow = build_flow(settings(kind), 1, 3)
        condition = torch.randn(2, 3)
    z = torch.linspace(-30, 30, 3001)[:, None, None].expand(-1, 2, 1)
    total = flow.log_prob(z, condition=condition).exp().sum(0) * 0.02
    torch.testing.assert_close(total, torch.ones(2), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", SBI_FLOWS)
@torch.no_grad()
def test_draws_and_densities_have_their_shapes_and_weights_are_all_there_is(kind: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        flow, other = (build_flow(settings(kind), 2, 3) for _ in range(2))
        condition = torch.randn(2, 3)
        z = flow.sample((4,), condition=condition)
    assert z.shape == (4, 2, 2)
    log_q = flow.log_prob(z, condition=condition)
    assert log_q.shape == (4, 2)
    assert log_q.isfinite().all()
    other.load_state_dict(flow.state_dict())
    torch.testing.assert_close(other.log_prob(z, condition=condition), log_q)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("zuko_bpf", {"degree": 5}),
        ("zuko_nsf", {"num_bins": 4}),
        ("zuko_gf", {"components": 3}),
        ("nsf", {"num_bins": 4}),
    ],
)
def test_options_reach_sbi(kind: str, options: dict[str, object]) -> None:
    plain, other = build_flow(settings(kind), 2, 3), build_flow(settings(kind, **options), 2, 3)
    assert [p.shape for p in plain.parameters()] != [p.shape for p in other.parameters()]


@pytest.mark.parametrize("kind", ["zuko_bpf", "nsf"])
def test_unknown_options_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="no_such_thing"):
        build_flow(settings(kind, no_such_thing=1), 2, 3)
