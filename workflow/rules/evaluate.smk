"""Figures: of each model, of the study; and whether its pseudo labels are still what they were."""


rule evaluate:
    input:
        index=index_for(evaluated_files, f"{MODEL}/metrics.json"),
        images=images,
        model=f"{MODEL}/model.pt",
        last=f"{MODEL}/last.pt",
    output:
        f"{MODEL}/metrics.json",
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
        settings=PLAN.evaluate.canonical(),
        files=digest_of(evaluated_files),
    shell:
        "{params.stage} --settings {params.settings:q} --index {input.index:q}"
        " --model {input.model:q} --last {input.last:q} --out {output:q} >> {log:q} 2>&1"


rule summary:
    input:
        metrics=[f"{STUDY}/{path}/metrics.json" for path in PLAN.models],
        # Read for what a person edited: the tables say so.
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
        models=list(PLAN.models),
        report=PLAN.evaluate.report,
    shell:
        "{params.stage} {params.study:q} {params.models:q} --report {params.report}"
        " --csv {output.csv:q} --markdown {output.markdown:q} >> {log:q} 2>&1"


rule verify:
    log:
        f"{STUDY}/logs/verify.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    params:
        stage=stage("verify.py"),
        manifests=[str(on_disk(path)) for path in of_labeled_rounds("pseudo_labels.csv")],
    shell:
        "{params.stage} {params.manifests:q} 2>&1 | tee -a {log:q}"
