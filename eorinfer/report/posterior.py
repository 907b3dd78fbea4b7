"""The page's section of posteriors: corner plots, tables, and the chain of emcee."""

from collections.abc import Iterator, Sequence
from typing import Any

from eorinfer.core.hdf5 import open_hdf5, read_array
from eorinfer.core.samples import Samples
from eorinfer.figures.chain import chain_figure
from eorinfer.figures.corner import COLOURS, corner
from eorinfer.figures.style import png_bytes
from eorinfer.report.cells import Cell, count, interval, number, to_figures_of, words, yes_or_no
from eorinfer.report.page import Block, Picture, Table, Text, read_png
from eorinfer.report.run_folder import CHAINS, RunFolder, corners, true_values
from eorinfer.report.shown import shown
from eorinfer.report.summary import summary, wider_line

#: Bytes that a chain may have to be drawn.
MOST_BYTES = 1e9


def posterior_blocks(run: RunFolder) -> Iterator[Block]:
    """Show what the posteriors say, and what they cost."""
    if not run.chains:
        return
    names = max((chain.names for chain in run.chains.values()), key=len)
    drawn = _drawn(run)
    for name, chains in corners(drawn, names).items():
        labels = ", ".join(chain.label for chain in chains)
        pictures = shown(run, f"{name}.png", (_corner(run, name, drawn, chains) for _ in range(1)))
        if not pictures:
            yield Text(f"The picture {name}.png cannot be drawn; the first lines of the page say why.")
            continue
        yield Picture.from_png(
            pictures[0],
            f"Corner plot of {', '.join(chains[0].names)}: {labels}",
            caption="Contours hold 68% and 95%. Above the diagonal: mean ± standard deviation. "
            "Axes span the prior, unless the figure says that they close on the posteriors."
            + (" Thin grey: the prior, where it is not flat." if run.prior else "")
            + (" Dashed: true parameters." if true_values(run.truth, chains[0]) is not None else "")
            + (f" {len(drawn)} of {len(run.chains)} posteriors are drawn." if len(drawn) < len(run.chains) else ""),
        )
    if wider := wider_line(run.chains):
        yield Text(f"{wider}.")
    content = summary(run.chains, run.truth, {}, run.prior)["posteriors"]
    labels_by_name = _labels(run.chains)
    rows: list[tuple[str, list[Cell]]] = []
    for name, posterior in content.items():
        for parameter, p in posterior["parameters"].items():
            row = [words(parameter), words(labels_by_name[name])]
            row += [to_figures_of(p[key], p["std"]) for key in ("mean", "std")]
            row += [interval(low, high, p["std"]) for low, high in (p["interval_68"], p["interval_95"])]
            row += [number(p["std_over_prior"], ".2g")]
            row += [number(p.get("truth")), number(p.get("bias_sigma"), ".2f")] if run.truth else []
            rows.append((parameter, row))
    rows.sort(key=lambda row: names.index(row[0]) if row[0] in names else len(names))
    yield Table(
        ["parameter", "method", "mean", "std", "68%", "95%", "std / prior"]
        + (["truth", "bias [σ]"] if run.truth else []),
        [row for _, row in rows],
        "What the posteriors say",
        "Intervals are central. std / prior: over the prior's standard deviation, so that 1 means nothing was learned. "
        + ("Bias: mean minus truth, in standard deviations of the posterior." if run.truth else ""),
    )
    if not run.only_contest:
        yield _methods(run, content, labels_by_name)
    if combined := run.sampled["combined"]:
        ln_p, ln_q = combined["weights"]
        more = combined["more_than_npe"]
        yield Text(
            f"NPE and image flow: ln p counts {ln_p:.2f} of itself and NPE {ln_q:.2f}. On the {combined['images']} "
            f"held-out images that taught these two numbers that is {more['mean']:.2f} ± {more['error']:.2f} nats more "
            "than NPE alone."
        )
    yield from _trace(run)


def _trace(run: RunFolder) -> Iterator[Block]:
    """Draw the chain of emcee as it ran, where its file is whole."""
    file = run.out / "chains" / "mcmc.h5"
    if "mcmc" not in run.chains or not file.exists():
        return
    facts, samples = run.sampled["mcmc"] or {}, run.chains["mcmc"]
    with open_hdf5(file, links=False) as content:
        name = "mcmc" if "mcmc" in content or len(content) != 1 else next(iter(content))
        if name not in content:  # of an older version that left several chains
            return
        steps = read_array(content[name], "chain", MOST_BYTES)
    figure = chain_figure(steps, samples.parameters, facts.get("autocorrelation_time"), samples.label)
    alt = f"Trace and autocorrelation of the chain of {samples.label}, {len(steps)} steps of {steps.shape[1]} walkers"
    yield Picture.from_png(png_bytes(figure), alt, "The chain, step by step", wide=True)


def _methods(run: RunFolder, content: dict[str, Any], labels: dict[str, str]) -> Table:
    """Make the table of what each chain cost, and whether it is long enough."""
    facts: dict[str, dict[str, Any]] = {
        "npe": {"seconds": sum(r["seconds"] for r in run.rounds) or None},
        "mcmc": run.sampled["mcmc"] or {},
        "field-flow": run.sampled["field_flow"] or {},
        "combined": run.sampled["combined"] or {},
    }
    rows: list[list[Cell]] = []
    for name, posterior in content.items():
        chain = facts.get(name, {})
        seconds = chain.get("seconds")
        seconds = sum(seconds.values()) if isinstance(seconds, dict) else seconds
        if name in ("field-flow", "combined") and seconds is not None and "field" in run.trained:
            seconds += run.trained["field"].get("seconds", 0.0)
        if name == "combined" and seconds is not None:
            seconds += facts["npe"]["seconds"] or 0.0
        lengths = chain["steps"] / chain["autocorrelation_time"] if chain.get("autocorrelation_time") else None
        rows.append(
            [
                words(labels[name]),
                count(posterior["samples"]),
                number(posterior["volume"], ".3g"),
                number(lengths, ".3g"),
                number(chain.get("r_hat"), ".3f"),
                yes_or_no(chain.get("converged")),
                number(seconds),
            ]
        )
    return Table(
        ["method", "samples", "volume", "steps / τ", "R̂", "converged", "seconds"],
        rows,
        "What they cost",
        "Volume: square root of the covariance's determinant, smaller is tighter. A chain counts as converged from 50 "
        "autocorrelation times τ, where R̂ over halves of its steps and groups of walkers is 1.01 at most. "
        "Seconds of training and sampling, without simulating.",
    )


def _drawn(run: RunFolder) -> dict[str, Samples]:
    """Choose all chains; or those of the run alone, where there are more than one can tell apart."""
    if len(run.chains) <= len(COLOURS):
        return run.chains
    # A contest has drawn those that it compares.
    return {name: chain for name, chain in run.chains.items() if name in CHAINS and not run.only_contest}


def _corner(run: RunFolder, name: str, drawn: dict[str, Samples], chains: Sequence[Samples]) -> bytes:
    """Read the picture of the step `plot`, or draw a new one where a chain has been added or is newer."""
    file = run.out / f"{name}.png"
    written = [run.out / "chains" / f"{chain}.txt" for chain in drawn]
    if (
        drawn.keys() <= {*CHAINS}
        and file.exists()
        and all(chain.stat().st_mtime <= file.stat().st_mtime for chain in written)
    ):
        return read_png(file)
    return png_bytes(corner(*chains, truth=true_values(run.truth, chains[0]), prior=run.prior))


def _labels(chains: dict[str, Samples]) -> dict[str, str]:
    """Label each chain; with its file's name where two have the same label."""
    labels = [chain.label for chain in chains.values()]
    return {
        name: chain.label if labels.count(chain.label) == 1 else f"{chain.label} ({name})"
        for name, chain in chains.items()
    }
