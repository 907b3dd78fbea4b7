"""Separating emission lines that fall on the same wavelengths, by a conditional GAN."""
