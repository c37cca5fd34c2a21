"""What an agent costs beside a hand-written program of the same mathematics (``plasticity bench overhead``).

One module for each hand-written learner. They import nothing from the agents or the engine.
"""
