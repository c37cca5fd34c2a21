"""``python -m plasticity.bench.gpu --out FILE``: complete check of a GPU machine in at most eight minutes.

Every section runs in its own process (:mod:`~plasticity.bench.gpu.section`), so a section that fails, hangs or is
killed does not affect the others; its results so far are in the file. Sections prepare (compile) in parallel, but each
is timed alone on the machine (:mod:`~plasticity.bench.gpu.conductor`).
"""
