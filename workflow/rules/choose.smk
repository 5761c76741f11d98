"""What the validations choose: the rounds and steps by folds, and the model to use."""


rule choose:
    """Choose the round and the steps of each method by the results of the folds (`folds`).

    The trainings on all masks read choice.json: they end after the chosen step, and rounds after
    the chosen one train nothing. The log has each comparison, and how sure it is.
    """
    input:
        index=ancient(INDEX),
        confusions=lambda wildcards: of_folds(wildcards.division, "confusions.csv"),
        histories=lambda wildcards: of_folds(wildcards.division, "history.csv"),
    output:
        f"{STUDY}/{{division}}/choice.json",
    log:
        f"{STUDY}/logs/{{division}}/choose.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    params:
        stage=stage("choose.py"),
        settings=PLAN.dataset.canonical(),
        study=subpath(output[0], ancestor=2),
        folds=lambda wildcards: folds_of(wildcards.division),
        models=lambda wildcards: models_of(wildcards.division),
    shell:
        "{params.stage} --settings {params.settings:q} --index {input.index:q}"
        " --study {params.study:q} --folds {params.folds:q} --models {params.models:q}"
        " --out {output:q} >> {log:q} 2>&1"


rule recommend:
    """Recommend one model of the study: which, why, what it gains, and what to do next.

    model.pt is a copy of it. The images of `evaluation.select`, or the folds, choose it; test
    images only give its score. recommendation.json has the numbers of recommendation.md.
    """
    input:
        index=ancient(INDEX),
        models=lambda wildcards: of_final_models("model.pt"),
        confusions=lambda wildcards: of_final_models("confusions.csv"),
        metrics=lambda wildcards: of_final_models("metrics.json"),
        histories=lambda wildcards: of_final_models("history.csv"),
        choices=[f"{STUDY}/{choice}" for choice in CHOICES],
        folds=[path for one in SEEDS for path in of_folds(one, "confusions.csv")],
    output:
        text=report(
            f"{STUDY}/recommendation.md",
            caption="../report/recommendation.rst",
            category="Summary",
        ),
        numbers=f"{STUDY}/recommendation.json",
        model=f"{STUDY}/model.pt",
    log:
        f"{STUDY}/logs/recommend.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    params:
        stage=stage("recommend.py"),
        settings=PLAN.dataset.canonical(),
        study=subpath(output.text, parent=True),
        divisions=SEEDS,
        models=FINAL_MODELS,
        labeled_only=[name for name in FINAL_MODELS if name in LABELED_ONLY],
        folds=len(folds_of(SEEDS[0])),
        tested="--tested" if TESTED else "",
    shell:
        "{params.stage} --settings {params.settings:q} --index {input.index:q}"
        " --study {params.study:q} --divisions {params.divisions:q} --models {params.models:q}"
        " --labeled-only {params.labeled_only:q} --folds {params.folds} {params.tested}"
        " --out {output.text:q}"
        " >> {log:q} 2>&1"
