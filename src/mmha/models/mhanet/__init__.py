"""Causal speech enhancement with masked multi-head attention: MHANet, its front end, its gains and its stream."""

from __future__ import annotations

from mmha.models.mhanet.config import BUILDERS, Config, published, small
from mmha.models.mhanet.gains import GAINS, gain, noise_power
from mmha.models.mhanet.look import Look, look
from mmha.models.mhanet.model import MHANet, load, loss, save
from mmha.models.mhanet.recording import Recording
from mmha.models.mhanet.snr import Moments, Statistics, a_priori
from mmha.models.mhanet.stream import LATENCY, Enhancer, Stream

__all__ = [
    "BUILDERS",
    "GAINS",
    "LATENCY",
    "Config",
    "Enhancer",
    "Look",
    "MHANet",
    "Moments",
    "Recording",
    "Statistics",
    "Stream",
    "a_priori",
    "gain",
    "load",
    "look",
    "loss",
    "noise_power",
    "published",
    "save",
    "small",
]
