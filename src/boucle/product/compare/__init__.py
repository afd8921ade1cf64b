"""Two versions of a promise side by side: what changed, for whom it breaks, which version says so."""

from boucle.product.compare.change import Change, Mode, Verdict
from boucle.product.compare.promises import compare, compare_all

__all__ = ["Change", "Mode", "Verdict", "compare", "compare_all"]
