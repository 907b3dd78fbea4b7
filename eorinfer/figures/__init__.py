"""Pictures for Matplotlib: corners, calibration, banks, image flow, separation, contest."""
