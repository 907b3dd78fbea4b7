"""What do posteriors of the neutral fraction say of maps whose source model nothing was trained on?

    python -m benchmarks.imageflow.robustness RUN --boxes 24 --maps 96

RUN is that of `benchmarks.imageflow.diffusion`. NPE, and small networks that read how ln p of the diffusion changes, as
in `density_features`, are asked about fresh boxes of the model of training and about boxes of others. The alarm looks
at the terms of ln p at NPE's mean, as an observer would, and compares them with those of held-out maps.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from benchmarks.imageflow.density_features import READ, Features, features, predictions, scores
from benchmarks.imageflow.diffusion import fresh_maps, over_boxes
from benchmarks.imageflow.neutral_fraction import regression
from benchmarks.imageflow.slices import unseen
from benchmarks.record import record
from eorinfer import Run
from eorinfer.bank.rows import Rows
from eorinfer.core.progress import for_terminal
from eorinfer.imageflow.alarm import KnownImages, compare_scales
from eorinfer.imageflow.model import ImageFlow
from eorinfer.run.config import check_config, load_config
from eorinfer.training.data import validation_rows

#: Keys of ``[simulator]`` in which a source model differs from that of training.
MODELS: dict[str, dict[str, Any]] = {
    "spheres": {"options": {"IONISE_ENTIRE_SPHERE": True}},
    "l-integral": {"options": {"SOURCE_MODEL": "L-INTEGRAL"}},
    "press-schechter": {"options": {"HMF": "PS"}},
    "spin temperature": {"spin_temperature": True, "nodes": "coarse"},
}
#: P-value of a map, over all terms, below which the alarm goes off.
ALARM = 0.05


def main() -> None:
    """Ask about each model, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--held-out", type=int, default=900, help="maps that teach the small networks and the alarm")
    parser.add_argument("--maps", type=int, default=96, help="of each model")
    parser.add_argument("--boxes", type=int, default=24, help="of each model to simulate")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start, run = time.monotonic(), Run(load_config(options.run / "config.toml"), options.run)
    flow = ImageFlow.load(options.run / "field")
    network = regression(run, flow, "NPE", options.run)
    rows, fresh = unseen(run)
    held = rows[validation_rows(rows.seed, run.config.tables.training.validation_fraction)]
    maps = fresh_maps(run, flow, held, options.held_out)
    learn = features(flow, network, maps, options.run / "features-held-out.npz")
    asked: dict[str, Features] = {}
    for name in ("as trained", *MODELS):
        own, those = (run, fresh) if name == "as trained" else of_model(run, name, options.boxes)
        maps = fresh_maps(own, flow, those, options.maps)
        asked[name] = features(flow, network, maps, options.run / f"features-{name.replace(' ', '-')}.npz")
    found = {name: {**of_npe(one), **alarms(learn, one)} for name, one in asked.items()}
    ends = np.cumsum([len(one.mean) for one in asked.values()])[:-1]
    for name, parts in READ.items():
        read = [
            np.concatenate([np.concatenate([getattr(one, part) for part in parts], axis=1) for one in those])
            for those in ([learn], asked.values())
        ]
        made = np.split(predictions(learn, *read), ends, axis=1)
        for (model, one), posteriors in zip(asked.items(), made, strict=True):
            found[model][f"{name}, read by a network"] = scores(one, posteriors)
    for model, content in found.items():
        print(model, content, flush=True)
    record("diffusion_robustness", found, seconds=time.monotonic() - start)


def of_model(run: Run, name: str, boxes: int) -> tuple[Run, Rows]:
    """Simulate boxes of another model at theta and seeds of their own, drawn from the run's prior."""
    content = run.config.content()
    if "nodes" in MODELS[name]:
        content["simulator"].pop("node_redshifts", None)
    content["simulator"] |= MODELS[name]
    content |= {"bank": {}, "inference": {"rounds": [boxes]}, "executor": {"workers": 1}, "seed": 7}
    other = Run(
        check_config(Path(run.config.file), content), run.out / f"model-{name.replace(' ', '-')}", for_terminal()
    )
    other.simulate()
    return other, other.bank.rows().ok


def of_npe(asked: Features) -> dict[str, Any]:
    """Score NPE itself."""
    off, box = asked.off, asked.maps.box
    square, error = over_boxes(off**2, box)
    of: dict[str, Any] = {
        "rms error": float(np.sqrt(np.mean((off * asked.std) ** 2))),
        "rms error over width": [round(square**0.5, 3), round(error / (2 * square**0.5), 3)],
        "inside 68%": over_boxes((np.abs(off) < 0.9945).astype(float), box),
        "inside 95%": over_boxes((np.abs(off) < 1.96).astype(float), box),
        "ln q at the truth": over_boxes(asked.log_q, box),
    }
    return {"maps": len(off), "boxes": len(np.unique(box)), "NPE": of}


def alarms(learn: Features, asked: Features) -> dict[str, Any]:
    """Say how often the alarm goes off, and by which term."""
    known = KnownImages(learn.terms[:, 1], learn.mean[:, None], learn.maps.box)
    p = compare_scales(asked.terms[:, 1], asked.mean[:, None], known).p
    return {
        "alarm": over_boxes((p.min(1) * p.shape[1] < ALARM).astype(float), asked.maps.box),
        "alarm, by term": [round(float(share), 3) for share in (p < ALARM).mean(0)],
    }


if __name__ == "__main__":
    main()
