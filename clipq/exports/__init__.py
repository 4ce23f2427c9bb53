"""Makes artifacts of open_clip models: exporters and quantization recipes of what deploys them.

Importing it loads no torch: that is done when something is made.
"""

from clipq.exports.making import make, missing_packages
from clipq.exports.manifest import MANIFEST, Manifest
from clipq.exports.recipes import Made, Recipe, recipes

__all__ = ["MANIFEST", "Made", "Manifest", "Recipe", "make", "missing_packages", "recipes"]
