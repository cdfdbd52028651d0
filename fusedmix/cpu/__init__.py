"""The CPU implementation of the op: numpy draws the parameters, torch and numpy move the pixels."""

from .mix import mix_into as mix_into
