"""What is added to the scores: values that hold tensors, learned ones too, and add with `+`.

>>> from mmha.bias import *
>>> ALiBi([0.5, 0.25]) + Relative([[-1.0, 0.0, 1.0]])
ALiBi([0.5, 0.25]) + Relative([[-1.0, 0.0, 1.0]])
"""

from mmha.bias.base import Bias, Parts, Sum
from mmha.bias.terms import Additive, ALiBi, Relative

__all__ = ["ALiBi", "Additive", "Bias", "Parts", "Relative", "Sum"]
