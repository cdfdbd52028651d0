"""The CPU implementation of the ops: numpy draws the parameters, torch and numpy move the pixels."""

from .augment import augment_into as augment_into
from .mix import mix_into as mix_into
