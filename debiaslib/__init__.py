"""debiaslib: understand, measure and reduce bias in face-generating diffusion models."""

from debiaslib._torchvision import declare_missing_operators

__version__ = "0.1.0"

_torchvision_operators = declare_missing_operators()
