"""Noise: time streams with a white level and a 1/f part, and the spectra that find them again."""

from __future__ import annotations

import numpy as np

from labwright.instruments.pysmurf.simulated.detectors import Detectors, Floats

LOWEST_HZ = 0.01


def noise(of: Detectors, samples: int, rate_hz: float, random: np.random.Generator) -> Floats:
    """Draw currents of (detectors, samples) in A with amplitude spectra white * sqrt(1 + knee / f)."""
    frequencies = np.fft.rfftfreq(samples, 1 / rate_hz)
    shape = np.sqrt(1 + of.knee_hz[:, None] / np.maximum(frequencies, LOWEST_HZ)[None, :])
    shape[:, 0] = 0
    sigma = of.white_level * np.sqrt(rate_hz / 2)
    white = random.standard_normal((of.count, samples)) * sigma[:, None]
    return np.fft.irfft(np.fft.rfft(white, axis=1) * shape, samples, axis=1)


def amplitude_spectra(signal: Floats, rate_hz: float, segment: int) -> tuple[Floats, Floats]:
    """Estimate amplitude spectra by Welch's method: Hann windows, half overlapping, the mean taken out.

    Gives frequencies in Hz and one row in units/rtHz for each row of `signal`. See P. D. Welch, IEEE Trans. Audio
    Electroacoust. 15 (1967).
    """
    samples = signal.shape[1]
    segment = max(2, min(segment, samples))
    window = np.hanning(segment)
    starts = range(0, samples - segment + 1, max(1, segment // 2))
    total = np.zeros((signal.shape[0], segment // 2 + 1))
    for start in starts:
        piece = signal[:, start : start + segment]
        spectrum = np.fft.rfft((piece - piece.mean(axis=1, keepdims=True)) * window, axis=1)
        total += np.abs(spectrum) ** 2
    density = 2 * total / len(starts) / (rate_hz * np.sum(window**2))
    return np.fft.rfftfreq(segment, 1 / rate_hz), np.sqrt(density)


def white_levels(frequencies: Floats, spectra: Floats, band_hz: tuple[float, float]) -> Floats:
    """Measure the white level of each row: the root of the mean power in a band of frequencies."""
    chosen = (band_hz[0] < frequencies) & (frequencies < band_hz[1])
    if not chosen.any():
        return np.full(len(spectra), np.nan)
    return np.sqrt(np.mean(spectra[:, chosen] ** 2, axis=1))


def knees(frequencies: Floats, spectra: Floats, levels: Floats) -> Floats:
    """Find where each spectrum first falls below the root of two of its white level."""
    below = spectra[:, 1:] < np.sqrt(2) * levels[:, None]
    first = np.argmax(below, axis=1)
    return np.where(below.any(axis=1), frequencies[1:][first], np.nan)
