"""The configs that come with the package; :mod:`plasticity.config.shipped` finds them by name."""
