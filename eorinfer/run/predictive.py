"""The posterior-predictive check: simulations at draws from the posterior of a run."""

from eorinfer.bank.rows import Plan
from eorinfer.campaign.plans import Used, plan_round
from eorinfer.core.files import read_json, write_json
from eorinfer.core.samples import Samples
from eorinfer.core.seeds import RunStream, run_seed
from eorinfer.run.context import RunContext
from simulators.base import fingerprint_of

#: Name of the round, in a run folder.
FILE = "chains/predictive.json"


def predict(context: RunContext, samples: Samples) -> None:
    """Simulate at draws from the posterior, or say why not."""
    config, bank, progress = context.config, context.bank, context.progress
    n, path = config.tables.inference.predictive, context.folder / FILE
    if not n or config.imported:
        path.unlink(missing_ok=True)
        if n:
            progress.line("predictive check: left out, imported cubes cannot be simulated anew")
        return
    if not set(config.prior.names) <= set(samples.names):
        path.unlink(missing_ok=True)
        progress.line("predictive check: left out, the targets do not name all parameters of the simulator")
        return
    seed = run_seed(config.tables.seed, RunStream.PREDICTIVE)
    theta = samples.only(config.prior.names).resample(n, seed).values
    proposal = fingerprint_of({"predictive": theta.tolist()})
    # Number 0: no round of any run trains on these rows.
    plan = plan_round(0, proposal, theta, config.simulator, seed, share=1)
    if not bank.writable and not bank.has(plan):
        path.unlink(missing_ok=True)
        progress.line(f"predictive check: left out, {bank.path} cannot be written")
        return
    plan = bank.add(plan)
    context.simulations.fill([Used(plan, n)], "predictive check")
    write_json(path, {"plan": plan.id})


def predictive_plan(context: RunContext) -> Plan | None:
    """Read the plan of the check; None before there is one, and where the bank has lost it."""
    path = context.folder / FILE
    if not path.exists():
        return None
    id = read_json(path)["plan"]
    return next((plan for plan in context.bank.plans() if plan.id == id), None)
