"""Figures: of each model, of the study; and whether its pseudo labels are still what they were."""


rule evaluate:
    input:
        index=index_for(evaluated_files, "{model}/metrics.json"),
        images=images,
        model=f"{STUDY}/{{division}}/{{model}}/model.pt",
        last=f"{STUDY}/{{division}}/{{model}}/last.pt",
    output:
        f"{STUDY}/{{division}}/{{model}}/metrics.json",
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
        settings=PLAN.evaluate.canonical(),
        files=digest_of(evaluated_files),
    shell:
        'exec "$PYTHON" "$SCRIPTS/evaluate.py" --settings {params.settings:q} --data "$DATA"'
        " --index {input.index:q} --model {input.model:q} --last {input.last:q}"
        " --out {output:q}"
        ' --device "$DEVICE" --workers "$WORKERS" >> {log:q} 2>&1'


rule summary:
    input:
        metrics=[f"{STUDY}/{path}/metrics.json" for path in PLAN.models],
        # Read for what a person edited: the tables say so.
        manifests=EVIDENCE["pseudo_labels.csv"],
        thresholds=[path for path in EDITED_THRESHOLDS if Path(path).is_file()],
    output:
        csv=report(f"{STUDY}/summary.csv", caption="../report/summary.rst", category="Summary"),
        markdown=f"{STUDY}/summary.md",
    log:
        f"{STUDY}/logs/summary.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    params:
        study=subpath(output.csv, parent=True),
        models=list(PLAN.models),
        report=PLAN.evaluate.report,
    shell:
        'exec "$PYTHON" "$SCRIPTS/summarize.py" {params.study:q} {params.models:q}'
        " --report {params.report} --csv {output.csv:q} --markdown {output.markdown:q}"
        " >> {log:q} 2>&1"


rule verify:
    log:
        f"{STUDY}/logs/verify.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    params:
        manifests=EVIDENCE["pseudo_labels.csv"],
    shell:
        '"$PYTHON" "$SCRIPTS/verify.py" {params.manifests:q} 2>&1 | tee -a {log:q}'
