"""What a run says at its start, and where it failed."""

import json
import shutil
import subprocess

from dst_cbc.runtime.devices import free_memory, memory_now
from dst_cbc.runtime.files import no_space

MEASURED_FROM = 5000  # steps: shorter work is over sooner than it is worth to measure


def cost_estimate():
    """What the run will take; long work is measured first, once."""
    study = on_disk(STUDY)
    work = cost.schedule(PLAN, RECORDS, study)
    if work.steps >= MEASURED_FROM and not ON_SLURM and not cost.remembered(PLAN, study):
        settings = workflow.config_settings
        files = settings.configfiles or [REPOSITORY / "config.yaml"]
        pairs = [f"{key}={json.dumps(value)}" for key, value in settings.config.items()]
        command = [sys.executable, REPOSITORY / "scripts/cost.py", *files, "--config", *pairs]
        # In a process of its own: torch stays out of this one. Its failure stops nothing.
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"no estimate: {done.stderr.strip()}"
    free = shutil.disk_usage(".").free
    if ON_SLURM:
        jobs, memory_here = workflow.resource_settings.nodes, 0
    else:
        jobs = 1 if GPU else max(1, workflow.cores // EXPERIMENT.compute_threads)
        memory_here = free_memory()
    lines = cost.describe(work, cost.remembered(PLAN, study), jobs, free, memory_here)
    return "\n".join(lines)


def last_words(log):
    """Why jobs died where they could not say so themselves. log: Snakemake's own, its text."""
    words = ["Each failed job's own words stand above, and in its log."]
    if shutil.disk_usage("results").free < 1 << 20:
        # Their logs lie on the same disk.
        words = [no_space("results/")]
    signals = sorted(set(re.findall(r"died with <Signals[.](SIG\w+)", log)))
    if signals:
        words.append(
            f"A job was ended by {', '.join(signals)}, not by itself. SIGKILL is what the system "
            f"does when memory runs out ({memory_now()}; `dmesg | tail` tells). Lower train.batch "
            "or train.crop, in prediction and evaluation evaluation.batch or evaluation.tile, or "
            "run fewer jobs at once: --cores. The same command goes on from the last save."
        )
    return "\n".join(words)
