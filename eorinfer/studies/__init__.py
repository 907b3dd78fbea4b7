"""Questions put to trained models beyond a run: generated images, and what they hold beyond their power spectrum."""
