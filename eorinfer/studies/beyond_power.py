"""Does an image flow see more in images than their power spectrum? Real ones against copies that have only that."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from eorinfer.core.arrays import as_theta
from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import make_folder, write_json
from eorinfer.core.progress import Progress
from eorinfer.core.seeds import StudyStream, stream_seed
from eorinfer.figures.beyond_power import beyond_power_figure, equal_power_figure
from eorinfer.figures.style import going_on, save_figure
from eorinfer.imageflow.model import ImageFlow
from eorinfer.likelihood.gaussian import PowerSpectrumLikelihood
from eorinfer.likelihood.grid import grid_samples
from eorinfer.run.received import load_received
from eorinfer.run.run import Run
from eorinfer.studies.equal_power import ImageLogLikelihood, find_equal_power, spectrum_likelihood
from eorinfer.studies.image_samples import RealImages
from eorinfer.summaries.power import build_power_spectrum
from eorinfer.summaries.surrogates import gaussian_copies, phase_randomised, shells

FORMAT = 1
REAL, PHASES, GAUSSIAN = "real", "phases turned", "Gaussian"
FLOW, POWER = "image flow", "power spectrum"
#: Conditions up to which posteriors are looked at, on a grid; its points along each, and of how many images.
GRID, POINTS, POSTERIORS, SAMPLES = 2, 40, 10, 4000
#: Images that pass the flow at once.
BATCH = 64


def beyond_power(
    model: Path, out: Path, n: int, seed: int, run: Path | None, progress: Progress, modules: Path | None = None
) -> None:
    """Write ``beyond.json``, ``beyond.png`` and ``pairs.png``.

    The clean cubes of held-out images are copied with their phases turned at random, and as Gaussian fields of the same
    spectrum; each goes through the survey with the same noise. At their own conditions the flow's ln p(x | y) of real
    images and copies is compared, and with it the power-spectrum likelihood. Then there are pairs of held-out images
    of different conditions whose power spectra agree: which of the two conditions does each method prefer?

    Parameters are those of the command ``eorinfer image-flow beyond-power``.

    Raises
    ------
    InputError
        If there is no flow, or no run.
    """
    flow = ImageFlow.load(model)
    run = run or model.parent
    if not (run / "config.toml").exists():
        raise InputError(f"{run}: no run here; give --run for the images that training held out")
    opened = Run(load_received(run, modules), run, progress)
    image = opened.config.observable
    shell = shells(image.cells, image.cell_size)
    source = RealImages(flow, opened, seed)
    changes = {REAL: None, PHASES: phase_randomised, GAUSSIAN: lambda x, g: gaussian_copies(x, shell, g)}
    images, y = {}, np.zeros(0)
    for name, change in changes.items():
        images[name], y = source.held_out(n, change)
    methods: dict[str, ImageLogLikelihood] = {FLOW: lambda x, y: _log_p(flow, torch.from_numpy(x), y)}
    try:
        methods[POWER] = _log_l(spectrum_likelihood(flow, opened, source, seed))
    except WorkError as error:
        progress.line(f"power spectrum: left out, {error}")
    scores = {method: {name: log_l(x, y) for name, x in images.items()} for method, log_l in methods.items()}
    content: dict[str, Any] = {"format": FORMAT, "model": str(model), "images": len(y), "methods": {}}
    for method, log_p in scores.items():
        content["methods"][method] = {name: _summarise(log_p[REAL], log_p[name]) for name in log_p}
        for name in (PHASES, GAUSSIAN):
            ours = content["methods"][method][name]
            progress.line(
                f"{method}: real against {name}: AUC {ours['auc']:.2f}, real preferred in {ours['preferred']:.0%} of "
                f"{len(y)} pairs, by {ours['difference']['median']:+.2f} nats an image (median)"
            )
    if len(flow.conditions.parameters) <= GRID:
        content["posteriors"] = {name: _posteriors(flow, x[:POSTERIORS], y, seed) for name, x in images.items()}
        for name, medians in content["posteriors"].items():
            texts = [f"{p}: off by {v['pull']:.1f} sigma, std {v['std']:.3g}" for p, v in medians.items()]
            progress.line(f"posteriors of {name} images, medians: {'; '.join(texts)}")
    pairs = find_equal_power(flow, opened, source, methods, n, seed)
    content["equal_power"] = pairs.content(flow.conditions.names)
    for line in _pair_lines(content["equal_power"]):
        progress.line(line)
    make_folder(out)
    write_json(out / "beyond.json", content)
    if len(pairs.chi2):
        spectrum = build_power_spectrum(flow.observable, opened.tables.power_spectrum.whole)
        with going_on(out / "pairs.png", progress.line):
            figure = equal_power_figure(flow.observable, flow.conditions, spectrum.k.numpy(), pairs)
            save_figure(figure, out / "pairs")
    with going_on(out / "beyond.png", progress.line):
        save_figure(beyond_power_figure(flow.observable, images, scores), out / "beyond")
    progress.line(f"results: {out}/beyond.json, beyond.png{', pairs.png' if len(pairs.chi2) else ''}")


def _log_p(flow: ImageFlow, images: torch.Tensor, y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ln p(x | y) in nats, (n,)."""
    batches = zip(images.split(BATCH), as_theta(y).split(BATCH), strict=True)
    with torch.no_grad():
        return torch.cat([flow.network.log_prob(x, conditions) for x, conditions in batches]).double().numpy()


def _log_l(likelihood: PowerSpectrumLikelihood) -> ImageLogLikelihood:
    """Ln L(y) of the images' power spectra."""

    def log_l(images: NDArray[np.float32], y: NDArray[np.float64]) -> NDArray[np.float64]:
        with torch.no_grad():
            power = likelihood.power_spectrum(torch.from_numpy(images)).flatten(1).double()
            return likelihood.emulator.log_likelihood(power, as_theta(y)).numpy()

    return log_l


def _pair_lines(content: dict[str, Any]) -> list[str]:
    """Say `EqualPower.content` in words."""
    where = f"of {content['candidates']} held-out images with conditions at least {content['apart']:.0%} of their range"
    if not content["pairs"]:
        return [f"equal power: no pair {where} apart has power spectra that agree"]
    apart = ", ".join(f"{name} {value:.3g}" for name, value in content["difference"].items())
    lines = [
        f"equal power: {content['pairs']} pairs {where} apart ({apart} in the median), whose power spectra agree (chi2 "
        f"{content['chi2']['median']:.1f} in the median, below {content['bins']} bins in all)"
    ]
    for method, ours in content["methods"].items():
        d = ours["difference"]
        lines.append(
            f"{method}: of pairs of equal power the right condition preferred in {ours['preferred']:.0%}, by "
            f"{d['median']:+.2f} nats an image (median; 68% in {d['low']:+.2f} to {d['high']:+.2f}), "
            f"AUC {ours['auc']:.2f}"
        )
    return lines


def _summarise(real: NDArray[np.float64], copies: NDArray[np.float64]) -> dict[str, Any]:
    """Summarise how well scores tell real images from copies: any two (AUC), and an image from its own copy."""
    difference = real - copies
    tied = np.isclose(difference, 0, atol=1e-6)
    return {
        "log_p": {"mean": float(copies.mean()), "std": float(copies.std(ddof=1))},
        "auc": float(mannwhitneyu(real, copies).statistic / (len(real) * len(copies))),
        "preferred": float(np.mean(np.where(tied, 0.5, difference > 0))),
        # Copies may be so unlikely that a mean is that of the worst.
        "difference": dict(
            zip(("low", "median", "high"), np.quantile(difference, [0.16, 0.5, 0.84]).tolist(), strict=True)
        ),
    }


def _posteriors(flow: ImageFlow, images: NDArray[np.float32], y: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """Compute the median |mean - truth| / std of the images' posteriors, and of their std, by condition."""
    pulls, stds = [], []
    for i, image in enumerate(torch.from_numpy(images)):
        log_l = flow.likelihood_of(image[None])
        own = stream_seed(seed, StudyStream.POSTERIORS, i)
        samples = grid_samples(log_l, flow.conditions, SAMPLES, own, FLOW, POINTS)
        pulls.append((samples.mean - y[i]) / samples.std)
        stds.append(samples.std)
    pull, std = np.median(np.abs(pulls), axis=0), np.median(stds, axis=0)
    return {
        name: {"pull": float(p), "std": float(s)} for name, p, s in zip(flow.conditions.names, pull, std, strict=True)
    }
