"""Metrics of each model, the summary of the study, and a check of its pseudo label files."""


rule evaluate:
    """Compute mIoU, IoU per class and confusion matrix of a model, on the reported subsets.

    metrics.json has them for model.pt (best of the chain) and last.pt (last step), confusions.csv
    the confusion matrix of each image.
    """
    input:
        index=index_for(evaluated_files, f"{MODEL}/metrics.json"),
        images=images,
        model=f"{MODEL}/model.pt",
        last=f"{MODEL}/last.pt",
    output:
        metrics=f"{MODEL}/metrics.json",
        confusions=f"{MODEL}/confusions.csv",
    log:
        f"{STUDY}/logs/{{division}}/{{model}}/evaluate.log",
    conda:
        "../../envs/dst-cbc.yaml"
    threads: EXPERIMENT.compute_threads
    resources:
        gpu=GPU,
        cpus_per_task=CPUS,
        runtime=evaluation_time,
        mem_mb=memory,
    params:
        stage=stage("evaluate.py", "data", "device", "workers"),
        settings=evaluation_settings,
        files=digest_of(evaluated_files),
    shell:
        "{params.stage} --settings {params.settings:q} --index {input.index:q}"
        " --model {input.model:q} --last {input.last:q} --out {output.metrics:q}"
        " --confusions {output.confusions:q} >> {log:q} 2>&1"


use rule evaluate as evaluate_given with:
    """Evaluate a model from elsewhere, such as a converted checkpoint, as one of the study.

    metrics.json has it as `best`. Asked for by name, and trains nothing.
    """
    input:
        index=index_for(evaluated_files, f"{GIVEN}/metrics.json"),
        images=images,
        model=f"{GIVEN}/model.pt",
        last=[],
    output:
        metrics=f"{GIVEN}/metrics.json",
        confusions=f"{GIVEN}/confusions.csv",
    log:
        f"{STUDY}/logs/{checksums.GIVEN}/{{name}}/evaluate.log",
    wildcard_constraints:
        name="[^/]+",


rule summary:
    """Collect the metrics of all models in summary.csv, and as tables in summary.md."""
    input:
        metrics=[f"{STUDY}/{model.path}/metrics.json" for model in SHOWN],
        # Read because the tables name the rounds that were edited by hand.
        manifests=of_labeled_rounds("pseudo_labels.csv"),
        thresholds=edited_thresholds,
    output:
        csv=report(f"{STUDY}/summary.csv", caption="../report/summary.rst", category="Summary"),
        markdown=f"{STUDY}/summary.md",
    log:
        f"{STUDY}/logs/summary.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    params:
        stage=stage("summarize.py"),
        study=subpath(output.csv, parent=True),
        models=[model.path for model in SHOWN],
        report=PLAN.evaluate.report,
    shell:
        "{params.stage} {params.study:q} {params.models:q} --report {params.report}"
        " --csv {output.csv:q} --markdown {output.markdown:q} >> {log:q} 2>&1"


rule verify:
    """Name every file of the study and of its data that is missing, changed or foreign.

    Makes no file; asked for by name: `snakemake verify`.
    """
    log:
        f"{STUDY}/logs/verify.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    params:
        stage=lambda wildcards, input: command_of("verify.py", "data"),
        study=str(on_disk(STUDY)),
    shell:
        # Not the names of the files: Snakemake prints the log of a failed job, so again.
        "{params.stage} {params.study:q} 2> {log:q}"
