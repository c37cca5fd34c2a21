"""Hand-written heads of the pages that ``make_pages.py`` makes."""

HEADS = {
    "interventions": """# Interventions

<!-- Made by docs/make_pages.py; the sections are the members' docstrings. -->

Every method below is one function in `plasticity/interventions/`, fills some of the fourteen functions of an
[`Intervention`](contracts.md#interventions), works with every agent and optimizer on which it can have an effect
(a plan refuses the others by name), and is tested against its equation. In a config:
`interventions: [layer_norm, {kind: weight_decay, rate: 1.0e-4}]`, in this order.
Two that set the same part of the network (two normalisations, two activations) are refused. Two more remedies are not
interventions but settings: categorical losses (`targets: two_hot` or `hl_gauss` of `c51`, `rainbow`, `stream_c51`;
`loss` of `regressor`), and Adam with a count for each parameter (`counts: parameter`) or with `b1 = b2`.

*Traced* numbers can be swept inside one compiled program; *static* settings make another program. A method **sees
task switches** only where it says so.

Where an agent joins several networks (`actor`, `critic_1`, `critic_2`, ... of `sac`, `td3` and `avg`, and a
learned `temperature` of `sac`; `policy` and `value` of `stream_ac` and of `ppo` with separate trunks, and its `scale`
for real-valued actions), `modules` restricts any method to some of them: `interventions: [{kind: layer_norm, modules:
[critic]}, {kind: l2, modules: [actor]}]`. `critic` means all critics. The method then sees these parts as if they were
the whole network, its sums and norms included, and the others learn as without it. (Of `reset`, `modules` also takes
single modules. What all parts share cannot be restricted: the replay buffer, or the counts of the one optimizer of
`ppo`.)

## What each does on one stream

`plasticity run configs/interventions.yaml`: the quickstart's stream (all labels of 512 inputs redrawn at every
visit) with a network twice as wide, 20 visits, 4 seeds, each method alone at its defaults unless the config says
otherwise. Left out are `at_switch`, which only combines others, and `old_policy_exploration`, which needs an agent
that acts. This compares nothing but defaults on one stream; a method that does nothing here may need another
strength, and a stream on which it is tuned.

![Accuracy per visit of every method, the baseline in grey](figures/interventions.png)

The arm `reset` gives the last layer new values at switches. `hare_tortoise` is judged by its tortoise, whose average
(decay 0.999) spans two visits of 500 updates; it needs a shorter one here. `infer` holds ten outputs at a hundred times
their first values, which takes the network ten visits. Old labels never come back, so methods against forgetting have
nothing to gain: `ewc`, `mas` and `l2_previous`, at the strengths of Continual World, hold on to the first labels.

""",
    "monitors": """# Monitors

<!-- Made by docs/make_pages.py; the sections are the members' docstrings. -->

A monitor looks at a learner without touching it, outside the training loop, at a period: `monitor_every` for all,
`every` for one (`monitors: [effective_rank, {kind: ntk, every: 5000}]`, in env steps or `visit`). It sees the
newest transitions (`probe_size`), the activations on them, the task loss on them and what the agent decides by.
Metrics are called after the monitor; those of single layers and further numbers are `monitor/what`. `plasticity
measure RUN --monitors A,B` computes them on the checkpoints of a run afterwards.

Where an agent joins several networks (see [Interventions](interventions.md)), `modules` restricts any monitor to some
of them: `monitors: [srank, {kind: srank, modules: [actor]}, {kind: srank, modules: [critic]}]`. It then measures these
parts as if they were the whole network, the others held fixed. Its metrics begin with their names: `actor_srank`,
`critic_srank`.

Names clash in this field: several quantities are called rank, and several dormant. Each section says which one it is
and what others call it. None of them is plasticity: ranks, dormant units and norms correlate with it positively in one
setting and negatively in another (Lyle et al. 2023); the probes at the end measure it, and the behaviour along the
stream (performance by visit, gap to the fresh control) is what it is for.

Costs are medians of `plasticity bench monitors` on two quiet CPU cores: the quickstart's classifier (MLP) and a DQN on
MinAtar with 512 transitions, the Nature network with 256. What costs much is measured more rarely by default, as its
section says. On the quickstart the four monitors that it has (every 2,000 steps, the Hessian every 4,000) add 8.9 % to
the training time of 8 lanes; every 50,000 steps they add 2.5 % to DQN on MinAtar and 0.6 % to DQN on Atari.

## All of them along one run

`plasticity run configs/monitors.yaml`: the quickstart's stream, 20 visits, 4 seeds; a network that loses its
plasticity, one with layer normalisation and weight decay that does not, and the fresh control. `value_scale` is left
out, since a classifier has no action values.

![All monitors along the quickstart's stream](figures/monitors.png)

What to see here: the probe of plasticity rises from the first visits on, long before accuracy falls. Ranks, dead
units and norms move with it from the start; stable rank and participation ratio move the *other* way, since what is
lost is the one large direction of the mean; and the Hessian's top eigenvalue and trace rise late and fall again
when the network is nearly dead, so that a single late value of them says little.

""",
    "networks": """# Networks

<!-- Made by docs/make_pages.py; the sections are the members' docstrings. -->

In a config: `network: {kind: mlp, widths: [256, 256]}` of an agent. A network is a graph of named operations; to add
your own: [Write a network](howto/network.md).

## Every intervention on every network

"yes": an agent with a small network of this kind was built with the method and its updates were traced. "no": it is
refused before anything is compiled, for the reason below the table. `tests/test_network_table.py` (slow) runs every
pair: the method must change what is learned, all numbers must stay finite, and lanes must not depend on each other. The
agent is a classifier, for the recurrent networks `stream_dqn`. These have a dense layer behind the cell; with the
default `widths` of `gru` and `lstm`, `plasticity_injection` needs `layers: 0`. The settings are the defaults, except
`at_switch` with `optimizer: reset`. `resnet18`, `residual_mlp` and `multi_skip` have `normalisation: none` here: with
their default, `layer`, `layer_norm` is refused because it changes nothing.

What the methods do in these networks:

* Units inside residual blocks and transformer blocks are written and read by one layer each. Units of a residual stream
  are written and read by several, and resetting one writes into all of them. `redo`, `regrama`, `cpr` and
  `self_normalized_resets` leave streams out unless `streams: true`; `continual_backprop` includes them unless
  `streams: false`. The streams of `simba`, `simba_v2` and `vit` pass no non-linearity and have no units here, and
  neither do attention heads.
* `layer_norm`, `rms_norm` and `nap` normalise after each convolution of `resnet18`; before each non-linearity of
  `impala` and `residual_mlp`; before the non-linearity of the dense layers inside the blocks of `simba` and `vit`, in
  addition to their own normalisations; and nowhere in a recurrent cell.
* `weight_norm` and `spectral_norm` change the kernels of convolutions and dense layers, including shortcuts and
  embeddings, but not those of attention and recurrent cells. Penalties, projections and resets of modules apply to
  every hidden kernel, including those.

""",
    "verification": """# What each method is checked against

<!-- Made by `python docs/make_pages.py verification` from the members' metadata. -->

For every method, the tables say with what the tests compare its equation, and what of it is not verified. A cell
begins with the comparison:

* **By hand**: numbers worked out in the test. **A formula, loop or program in NumPy**: the equation written a second
  time in the tests, mostly in double precision, with the gradients by hand where the cell says so. It shares no code
  with the method.
* **Closed form**: a case whose result is known exactly. **Bit for bit**: equal to another computation that must give
  the same numbers. **Frequencies, moments**: of random draws, within a few standard errors.
* **A library** (optax, rlax, SciPy, JAX's own gradients): the same computation by others. PyTorch is not run: its rules
  are written out. No test runs the released code of a paper; where a docstring says that the two were compared, they
  were compared by reading.
* **Contracts only**: no test compares the equation with anything; only shapes, finite numbers and the like are tested.

The programs in the tests were written from the same equations as the methods. They show that the code computes what its
docstring says, not that the docstring says what the paper says. The rest of a cell is therefore about the source:

* **Second-hand**: taken from notes, surveys or summaries, or from code by others.
* **Follows the authors' code**: read there; the paper was read in part or not at all.
* **Ours**: chosen for this testbed, because there is no published value or we know of none.

Where a cell says nothing about the source, we know of no such doubt; this does not mean that every number was read in
the paper. Known differences from the paper are in the member's docstring.

The contract tests apply to all members as well. To find the tests of a member, search `tests/` for its name.

## What is left out

* **Shampoo and Kron** (the optimizer of Creus Castanyer et al. 2025, whose network is `multi_skip`): optax has neither;
  a plug-in may return one as a plain optax transformation ([Write an optimizer](howto/optimizer.md)).
* **Layer-wise LQR** as an optimizer: we have not found its equations in full.
* **A newer rule of the streaming paper** (steps divided by a decaying maximum of the trace's entries): known to us from
  notes only, not from a text, and so not built under that name. `intentional` and `adaptive_obgd` are the nearest.
* **Learning to Modulate** as a whole (a decision transformer that is trained on many tasks): `modulation` is its
  modulation of a frozen network.
* **Variational continual learning, Progress & Compress, and V-trace for `clear`**.

""",
}
