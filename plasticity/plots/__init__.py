"""Tables to figures: one function for each figure, none of them with hidden state, and :func:`save_all`."""

from plasticity.plots.curves import learning_curve, monitor_names, monitors
from plasticity.plots.performance import performance
from plasticity.plots.save import figures, save, save_all

__all__ = ["figures", "learning_curve", "monitor_names", "monitors", "performance", "save", "save_all"]
