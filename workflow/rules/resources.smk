"""Resources of jobs: GPUs and threads, and for a cluster time and memory by the cost estimate."""

from dst_cbc.planning import cost
from dst_cbc.runtime.devices import cuda_is_likely

# On SLURM, jobs run on other machines; whether this login node has a GPU means nothing.
ON_SLURM = "slurm_partition" in (workflow.resource_settings.default_resources or {})
# 1 `gpu` token for a job if stages will use CUDA, else 0.
GPU = int(
    EXPERIMENT.device == "cuda" or (EXPERIMENT.device == "auto" and (ON_SLURM or cuda_is_likely()))
)
# Processes of a stage that reads images and runs no network.
READERS = 4 if ON_SLURM else workflow.cores
CPUS = EXPERIMENT.compute_threads + EXPERIMENT.workers

# Only a cluster uses this estimate. A measurement on another kind of device does not count.
COST = cost.remembered(PLAN, on_disk(STUDY))
if not COST or COST.device.startswith("cuda") != bool(GPU):
    COST = cost.GUESS


def training_time(wildcards):
    return cost.minutes(cost.training_seconds(model_of(wildcards), RECORDS, COST))


def prediction_time(wildcards):
    images = len(split_of(wildcards).unlabeled) / int(wildcards.get("shards", 1))
    return cost.minutes(COST.image * images)


# These stages start from the beginning after a timeout, so each attempt gets more time.
def evaluation_time(wildcards, attempt):
    images = sum(len(ids) for ids, _ in evaluated_files(wildcards))
    return attempt * cost.minutes(2 * COST.image * images)


def labeling_time(wildcards, attempt):
    seconds = COST.image if model_of(wildcards).needs_pass else cost.READ_SECONDS
    return attempt * cost.minutes(seconds * len(split_of(wildcards).unlabeled))


def check_time(wildcards, attempt):
    return attempt * cost.minutes(cost.READ_SECONDS * len(RECORDS))


def memory(wildcards, attempt):
    return cost.megabytes(COST, EXPERIMENT.workers, attempt)


def training_memory(wildcards, attempt):
    return memory(wildcards, attempt) * model_of(wildcards).settings.train.gpus


def training_gpus(wildcards):
    """`gpu` tokens of a training: one for each GPU that it uses."""
    return GPU * model_of(wildcards).settings.train.gpus


def training_threads(wildcards):
    """CPU threads of all processes of a training."""
    return EXPERIMENT.compute_threads * model_of(wildcards).settings.train.gpus


def training_cpus(wildcards):
    return CPUS * model_of(wildcards).settings.train.gpus


def prediction_gpus(wildcards, input):
    """`gpu` tokens of a prediction: none if it only joins shards."""
    return 0 if input.get("shards") else GPU


def labeling_gpus(wildcards, input):
    """`gpu` tokens of a labeling: only if it runs the network, for all classes' probabilities."""
    return 0 if input.get("shards") or not model_of(wildcards).needs_pass else GPU
