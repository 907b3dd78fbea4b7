"""An answer counts for the request and the process that it belongs to, and for no other."""

from pathlib import Path

import numpy as np
import pytest

from eorinfer.campaign.children import Child
from simulators import GaussianField, build, fingerprint

ODD = """
import json, os
from simulators import GaussianField

class Odd(GaussianField):
    fault: str = ""

    def simulate(self, theta, seed):
        good = super().simulate(theta, seed)
        if seed % 3 == 0:
            if self.fault == "twin":
                os.fork()  # both go on
            if self.fault == "heir" and os.fork():
                os._exit(0)  # the child of the child goes on alone
            if self.fault in ("forged", "garbage"):
                reply = json.dumps({"status": "ok", "message": "", "seconds": 1.0, "word": "guessed"}).encode()
                frame = len(reply).to_bytes(4, "little") + reply + bytes(4 * 64)
                for name in os.listdir("/proc/self/fd"):
                    try:
                        if "pipe" in os.readlink(f"/proc/self/fd/{name}"):
                            os.write(int(name), frame if self.fault == "forged" else b"\\xff" * 64)
                    except OSError:
                        pass
        return good
"""


@pytest.mark.parametrize(
    ("fault", "status"), [("twin", "ok"), ("heir", "killed"), ("forged", "killed"), ("garbage", "killed")]
)
@pytest.mark.job
def test_no_row_has_the_array_of_another(tmp_path: Path, fault: str, status: str) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    simulator, plain = build({"kind": "odd:Odd", "cells": 8, "fault": fault}, tmp_path), GaussianField(cells=8)
    theta, child = np.array([0.5, -1.0]), None
    for seed in range(7):
        if child is None or not child.alive:
            child = Child(simulator.settings(), str(tmp_path), None, fingerprint(simulator))
        result = child.row(theta, seed, 20.0)
        assert result.status == (status if seed % 3 == 0 else "ok"), result.message
        if result.status == "ok":
            np.testing.assert_array_equal(result.arrays["field"], plain.simulate(theta, seed)["field"])
    assert child is not None
    child.kill()
