"""From a bank and an observation to posteriors: sequential NPE, and MCMC on the power spectrum."""
