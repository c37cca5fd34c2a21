"""``python -m plasticity.bench.gpu --out FILE``: the one check for a machine with a GPU, in at most eight minutes.

Every section runs in a process of its own (:mod:`~plasticity.bench.gpu.section`), so that one which fails, hangs or is
killed loses no other; what it has found so far is in the file. Sections prepare (compile) side by side; what is timed
gets the machine for itself (:mod:`~plasticity.bench.gpu.conductor`).
"""
