"""Masked sequence modelling of fMRI: a voxel's series is a sentence, and its values are the words (MAMSM, stage 1)."""

from __future__ import annotations

from mmha.models.mamsm.attended import features, moving_average, window
from mmha.models.mamsm.autoencoder import Autoencoder
from mmha.models.mamsm.config import BUILDERS, Config, published, small
from mmha.models.mamsm.files import load, save
from mmha.models.mamsm.model import MAMSM, begin_smooth
from mmha.models.mamsm.scale import CLS, MASK, PAD, SEP, SPECIAL, Scale, frame

__all__ = [
    "BUILDERS",
    "CLS",
    "MAMSM",
    "MASK",
    "PAD",
    "SEP",
    "SPECIAL",
    "Autoencoder",
    "Config",
    "Scale",
    "begin_smooth",
    "features",
    "frame",
    "load",
    "moving_average",
    "published",
    "save",
    "small",
    "window",
]
