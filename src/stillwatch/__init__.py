"""stillwatch: find, stop and prove illicit model distillation in an LLM provider's traffic.

Importing this is cheap: engines, kernels and plug-ins load on first use.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
