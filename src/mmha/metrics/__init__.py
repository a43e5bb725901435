"""Figures that judge a model: of text here, of speech in `mmha.metrics.speech`, of series in `mmha.metrics.series`."""

from mmha.metrics.text import Accuracy as Accuracy
from mmha.metrics.text import tag_accuracy as tag_accuracy
from mmha.metrics.text import translation as translation
