"""Rank and norm of the hidden features.

Seven measures of the rank each have their own name. All are functions of the singular values ``s_1 >= s_2 >= ...`` of
the feature matrix ``[n samples, d features]``: the post-activations of a hidden layer on ``probe.activations`` (the
agent's batch of recent transitions, the current parameters). A convolution's ``[B, H, W, channels]`` is flattened to
``[B, H * W * channels]``, as the next dense layer reads it. Features are not centred by default, as in the papers.

* No rank exceeds ``min(n, d)``. Fewer samples than features are not an error, but ranks are then comparable only at
  equal ``n``, and ``<metric>/samples_below_features`` is recorded as 1 (Moalla et al. 2024 skip the rank).
* All ranks are 0 for features that are all zero and NaN for features that are not finite.
* All but ``feature_rank`` are invariant to the scale of the features. For every matrix
  ``stable_rank <= participation_ratio <= effective_rank <= numerical_rank`` and, at equal ``delta``,
  ``approximate_rank <= srank``.
* The metric is ``<name>`` or, with ``layer="all"``, ``<name>/<layer>`` for each hidden layer. It is absent if the
  network has no hidden layer.

Singular values come from an SVD, not from the eigenvalues of the smaller Gram matrix, because in float32 squaring loses
everything below ``3e-4 s_1``: a 512 x 256 matrix of rank one would have srank 10 and effective rank 1.13, and this
would save only a quarter of the time. Monitors used together share one SVD (the compiler merges equal calls).

Settings common to all members (static): ``layer``, which is "last", "all" or the name of a hidden layer; ``centred``,
whether to subtract every feature's mean over the batch first. An unknown layer is a ``ValueError`` while tracing, which
names the known ones.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from plasticity.config.fields import BelowOne, NonNegative, metadata
from plasticity.core import linalg
from plasticity.core.errors import refused
from plasticity.core.types import Activation, Array, Key, Metrics, Network, Probe, State
from plasticity.monitors.base import NOT_NEGATIVE, Monitor
from plasticity.monitors.units import hidden_layers

Rank = Callable[[Array, tuple[int, int]], Array]  # singular values, descending; (samples, features) -> float32[]


def singular_values(features: Array, centred: bool = False) -> Array:
    """Descending singular values ``float32[min(n, d)]`` of ``features [n, ...]``, flattened to ``[n, d]``."""
    matrix = features.reshape(features.shape[0], -1)
    if centred:
        matrix = matrix - jnp.mean(matrix, axis=0)
    return linalg.singular_values(matrix)


def ratio(numerator: Array, denominator: Array) -> Array:
    """0 / 0 = 0; NaN stays NaN."""
    return numerator / jnp.where(denominator == 0, 1, denominator)


def entropy_rank(values: Array) -> Array:
    """``exp(-sum_i p_i ln p_i)``, ``p_i = v_i / sum_j v_j`` of descending non-negative numbers; 0 if all are 0."""
    total = jnp.sum(_relative(values))
    entropy = jnp.sum(jax.scipy.special.entr(ratio(_relative(values), total)))
    return jnp.where(total == 0, 0, jnp.exp(entropy))


def _relative(values: Array) -> Array:
    """Values relative to the largest, so that squares and fourth powers neither overflow nor vanish."""
    return ratio(values, values[0])


def _count(condition: Array, values: Array) -> Array:
    """The number of values for which the condition holds; NaN if a value is NaN, because comparisons hide a NaN."""
    return jnp.where(jnp.isnan(values[0]), jnp.nan, jnp.sum(condition, dtype=jnp.float32))


def _until(weights: Array, delta: Array | float) -> Array:
    """``min{k : sum of the first k >= (1 - delta) * sum of all}``, computed as the number of tails above ``delta``.

    For small ``delta``, the sum of a tail is more precise than that of the values before it.
    """
    tails = jnp.cumsum(weights[::-1])[::-1]
    return _count(tails > delta * tails[0], weights)


def _before_outputs(network: Network) -> list[str]:
    """The hidden layers that the output layers read, in order."""
    return [layer.name for layer in network.layers if layer.distance == 1]


def _selected(name: str, layer: str, network: Network, layers: dict[str, Activation]) -> dict[str, Array]:
    """The post-activations to measure, by metric."""
    if not layers:
        return {}
    if layer == "all":
        return {f"{name}/{each}": activation.post for each, activation in layers.items()}
    if layer != "last" and layer not in layers:
        raise refused("layer", layer, f"last, all or one of {', '.join(layers)}", name)
    if layer != "last":
        return {name: layers[layer].post}
    first, *others = _before_outputs(network)
    return {name: layers[first].post} | {f"{name}/{each}": layers[each].post for each in others}


def _length(values: Array) -> Array:
    """The mean Euclidean norm over the batch."""
    return jnp.mean(jnp.linalg.norm(values.reshape(len(values), -1), axis=-1))


def _rank_monitor(name: str, layer: str, centred: bool, rank: Rank) -> Monitor:
    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        selected = _selected(name, layer, probe.network, hidden_layers(probe.network, probe.activations))
        found: dict[str, Array] = {}
        for metric, post in selected.items():
            samples, features = len(post), post[0].size
            found[metric] = rank(singular_values(post, centred), (samples, features))
            if samples < features:
                found[f"{metric}/samples_below_features"] = jnp.where(jnp.isnan(found[metric]), jnp.nan, 1.0)
        return state, found

    return Monitor(measure, ranges={name: NOT_NEGATIVE})


@metadata(paper="Roy & Vetterli 2007, The effective rank: a measure of effective dimensionality")
def effective_rank(*, layer: str = "last", centred: bool = False) -> Monitor:
    """The exponential of the entropy of the normalised singular values of the features.

    ``exp(-sum_i p_i ln p_i)``, ``p_i = s_i / sum_j s_j``: between 1 and ``min(n, d)``; 0 for zero features.

    Reference: Roy & Vetterli 2007, The effective rank: a measure of effective dimensionality. In lop-jax ``ln p`` is
    ``ln(p + 1e-8)``; nothing is added here.
    """

    return _rank_monitor("effective_rank", layer, centred, lambda values, shape: entropy_rank(values))


@metadata(paper="Kumar, Agarwal, Ghosh & Levine 2021, Implicit Under-Parameterization Inhibits Data-Efficient Deep RL")
def srank(*, delta: BelowOne = 0.01, layer: str = "last", centred: bool = False) -> Monitor:
    """The number of singular values that make up all but ``delta`` of their sum.

    ``min{k : sum_{i<=k} s_i >= (1 - delta) sum_i s_i}``; 0 for zero features.

    Reference: Kumar, Agarwal, Ghosh & Levine 2021, Implicit Under-Parameterization Inhibits Data-Efficient Deep
    Reinforcement Learning.

    Args:
        delta: the share of the sum that may be missing (traced).

    Plasticine and the code of Dohare et al. 2024 call this "stable rank", the name of a different quantity
    (:func:`stable_rank`).
    """
    return _rank_monitor("srank", layer, centred, lambda values, shape: _until(_relative(values), delta))


@metadata(
    paper="Yang, Zhang, Xu & Katabi 2020, Harnessing Structures for Value-Based Planning and Reinforcement Learning"
)
def approximate_rank(*, delta: BelowOne = 0.01, layer: str = "last", centred: bool = False) -> Monitor:
    """The number of singular values that make up all but ``delta`` of their sum of squares (variance, if centred).

    ``min{k : sum_{i<=k} s_i^2 >= (1 - delta) sum_i s_i^2}``; 0 for zero features.

    Reference: Yang, Zhang, Xu & Katabi 2020, Harnessing Structures for Value-Based Planning and Reinforcement Learning.

    Args:
        delta: the share of the sum that may be missing (traced).

    Also known as PCA rank.
    """
    return _rank_monitor(
        "approximate_rank", layer, centred, lambda values, shape: _until(_relative(values) ** 2, delta)
    )


@metadata(paper="Lyle, Rowland & Dabney 2022, Understanding and Preventing Capacity Loss in Reinforcement Learning")
def feature_rank(*, epsilon: NonNegative = 0.01, layer: str = "last", centred: bool = False) -> Monitor:
    """The number of singular values above a fixed threshold.

    ``#{i : s_i / sqrt(n) > epsilon}``.

    Reference: Lyle, Rowland & Dabney 2022, Understanding and Preventing Capacity Loss in Reinforcement Learning.

    Args:
        epsilon: in the features' own scale (traced).

    This is the only rank that depends on the features' scale: do not compare it across networks that differ in
    normalisation. The paper uses n = 5000 samples.
    """

    def rank(values: Array, shape: tuple[int, int]) -> Array:
        return _count(values > epsilon * shape[0] ** 0.5, values)

    return _rank_monitor("feature_rank", layer, centred, rank)


@metadata(note="the definition of numpy.linalg.matrix_rank")
def numerical_rank(*, layer: str = "last", centred: bool = False) -> Monitor:
    """The number of singular values above rounding error.

    ``#{i : s_i > s_1 max(n, d) eps}``, ``eps`` the machine epsilon of the features' type, as in NumPy's
    ``matrix_rank``.
    """

    def rank(values: Array, shape: tuple[int, int]) -> Array:
        return _count(values > values[0] * max(shape) * jnp.finfo(values.dtype).eps, values)

    return _rank_monitor("numerical_rank", layer, centred, rank)


@metadata(note="the textbook definition; other code gives this name to srank")
def stable_rank(*, layer: str = "last", centred: bool = False) -> Monitor:
    """The squared Frobenius norm divided by the squared spectral norm.

    ``sum_i s_i^2 / s_1^2``; 0 for zero features.

    This is the textbook definition. What Dohare et al. 2024 and Plasticine record as "stable rank" is :func:`srank`.
    """
    return _rank_monitor("stable_rank", layer, centred, lambda values, shape: jnp.sum(_relative(values) ** 2))


@metadata(note="the participation ratio of principal component analysis")
def participation_ratio(*, layer: str = "last", centred: bool = False) -> Monitor:
    """The participation ratio of the squared singular values, a smooth count of principal components.

    ``(sum_i s_i^2)^2 / sum_i s_i^4``; 0 for zero features. Known from principal component analysis, where the features
    are centred (``centred=True``).
    """

    def rank(values: Array, shape: tuple[int, int]) -> Array:
        del shape
        squares = _relative(values) ** 2
        return ratio(jnp.sum(squares) ** 2, jnp.sum(squares**2))

    return _rank_monitor("participation_ratio", layer, centred, rank)


@metadata(paper="Moalla, Miele, Pyatko, Pascanu & Gulcehre 2024, No Representation, No Trust")
def feature_norm() -> Monitor:
    """The norm of the last hidden layer's features, and statistics of the pre-activations.

    ``feature_norm = mean_x |h(x)|_2``, ``h`` the post-activations of the layer that the outputs read (of the first
    output layer, if several do), and ``feature_norm/pre`` the same for its pre-activations. For every hidden layer
    ``feature_norm/<layer>`` and ``feature_norm/<layer>/pre``, and ``feature_norm/<layer>/pre_mean`` and
    ``feature_norm/<layer>/pre_std``: the mean and the population standard deviation of the pre-activations over
    samples, positions and units together. Convolutions are flattened, ``[B, H * W * channels]``. Absent if the network
    has no hidden layer.

    Reference: Moalla, Miele, Pyatko, Pascanu & Gulcehre 2024, No Representation, No Trust (norms); Lyle, Zheng,
    Khetarpal, van Hasselt, Pascanu, Martens & Dabney 2024, Disentangling the causes of plasticity loss in neural
    networks (shift of the pre-activations).

    Pre-activations are the inputs to the non-linearity. If there is a normalisation, they are measured after it, and
    their moments are then set by it. Which layers and moments to record is our choice.
    """

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        layers = hidden_layers(probe.network, probe.activations)
        found: dict[str, Array] = {}
        for layer, (pre, post) in layers.items():
            found[f"feature_norm/{layer}"], found[f"feature_norm/{layer}/pre"] = _length(post), _length(pre)
            found[f"feature_norm/{layer}/pre_mean"], found[f"feature_norm/{layer}/pre_std"] = (
                jnp.mean(pre),
                jnp.std(pre),
            )
        if not layers:
            return state, {}
        last, *_ = _before_outputs(probe.network)
        last_of_all = {
            "feature_norm": found[f"feature_norm/{last}"],
            "feature_norm/pre": found[f"feature_norm/{last}/pre"],
        }
        return state, last_of_all | found

    return Monitor(measure, ranges={"feature_norm": NOT_NEGATIVE})
