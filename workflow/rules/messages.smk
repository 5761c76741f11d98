"""Messages of a run: the cost estimate at its start, and advice after a failure."""

import json
import shutil
import subprocess

from dst_cbc.runtime.devices import free_memory, memory_now
from dst_cbc.runtime.errors import no_space

MEASURED_FROM = 5000  # steps; measuring a shorter run is not worth its time


def cost_estimate():
    """Return the cost estimate of the study as text. A long run that trains is measured first, once."""
    study = on_disk(STUDY)
    work = cost.schedule(PLAN, RECORDS, study)
    made = {Path(str(file)).name for job in workflow.dag.needrun_jobs() for file in job.output}
    is_long = work.steps >= MEASURED_FROM and "model.pt" in made
    if is_long and not ON_SLURM and not cost.remembered(PLAN, study):
        settings = workflow.config_settings
        files = settings.configfiles or [REPOSITORY / "config.yaml"]
        pairs = [f"{key}={json.dumps(value)}" for key, value in settings.config.items()]
        command = [sys.executable, REPOSITORY / "scripts/cost.py", *files, "--config", *pairs]
        # A separate process keeps torch out of Snakemake. A failure does not stop the run.
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"no cost estimate: {done.stderr.strip()}"
    free = shutil.disk_usage(".").free
    if ON_SLURM:
        jobs, memory_here = workflow.resource_settings.nodes, 0
    else:
        jobs = 1 if GPU else max(1, workflow.cores // EXPERIMENT.compute_threads)
        memory_here = free_memory()
    lines = cost.describe(work, cost.remembered(PLAN, study), jobs, free, memory_here)
    return "\n".join(lines)


def recommended():
    """The recommendation in short, if this run has made it; else no text."""
    path = on_disk(f"{STUDY}/recommendation.md")
    made = {str(file) for job in workflow.dag.finished_jobs for file in job.output}
    return path.read_text().partition("\n## ")[0] if str(path) in made else ""


def last_words(log):
    """Advice for failures that a job could not report itself. log: text of Snakemake's log."""
    words = ["The error message of each failed job is above, and in its log file."]
    if shutil.disk_usage("results").free < 1 << 20:
        # On a full disk the jobs could not write their logs either.
        words = [no_space("results/")]
    signals = sorted(set(re.findall(r"died with <Signals[.](SIG\w+)", log)))
    if signals:
        words.append(
            f"A job was ended by {', '.join(signals)}. The system sends SIGKILL when memory runs "
            f"out ({memory_now()}; see `dmesg | tail`). Lower train.batch or train.crop; in "
            "prediction and evaluation, lower evaluation.batch or evaluation.tile. Or run fewer "
            "jobs at once: --cores. The same command continues from the last save."
        )
    return "\n".join(words)
