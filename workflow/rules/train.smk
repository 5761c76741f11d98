"""Training: on labeled images only, then round by round on pseudo-labeled images as well."""


rule train:
    """Train a model on labeled images only: round 0 (`supervised`), or a control, which may continue it.

    model.pt is the best model on the images of `evaluation.select`, last.pt the model after the
    last step. settings.json has every setting of the training, history.csv one row per validation,
    run.json the versions, device and seconds.
    """
    input:
        index=index_for(training_files, f"{MODEL}/model.pt"),
        images=images,
        labeled=f"{STUDY}/splits/{{division}}.labeled.txt",
        weights=initial_weights,
        previous=read_by_training("previous"),
        choice=read_by_training("choice"),
    output:
        **TRAINED,
    log:
        f"{STUDY}/logs/{{division}}/{{model}}/train.log",
    benchmark:
        f"{STUDY}/benchmarks/{{division}}/{{model}}/train.tsv"
    wildcard_constraints:
        model="|".join(map(re.escape, LABELED_ONLY)),
    conda:
        "../../envs/dst-cbc.yaml"
    threads: training_threads
    resources:
        gpu=training_gpus,
        cpus_per_task=training_cpus,
        runtime=training_time,
        mem_mb=training_memory,
    params:
        stage=stage("train.py", "data", "device", "workers", "save-seconds"),
        settings=model_settings,
        files=digest_of(training_files),
        folder=subpath(output.model, parent=True),
        state=f"{STATE}/{{division}}/{{model}}/train",
        board=f"{BOARD}/{{division}}/{{model}}",
        options=training_options,
    shell:
        "{params.stage} --settings {params.settings:q} --index {input.index:q}"
        " --labeled {input.labeled:q} {params.options} --out {params.folder:q}"
        " --resume {params.state:q} --board {params.board:q} >> {log:q} 2>&1"


use rule train as finetune with:
    """Train one round of self-training on labeled and pseudo-labeled images.

    It starts from the model of the round before, or from initial weights (`start: restart`), and
    writes the same files as train. model.pt is the best model of the chain of rounds so far.
    """
    input:
        index=index_for(training_files, f"{MODEL}/model.pt"),
        images=images,
        labeled=f"{STUDY}/splits/{{division}}.labeled.txt",
        weights=weights_of_round,
        previous=read_by_training("previous"),
        # Ancient: a changed PNG shows in the manifest, and the time of a folder means nothing.
        labels=pseudo_label_folder,
        pseudo_labels=read_by_training("pseudo-labels"),
        unlabeled=read_by_training("unlabeled"),
        predictions=read_by_training("predictions"),
        thresholds=read_by_training("thresholds"),
        labeling_model=read_by_training("labeling-model"),
        choice=read_by_training("choice"),
    log:
        f"{STUDY}/logs/{{division}}/{{model}}/finetune.log",
    benchmark:
        f"{STUDY}/benchmarks/{{division}}/{{model}}/finetune.tsv"
    wildcard_constraints:
        model=rounds_of(sorted({*SELF_TRAINED} - {*KEEP_SNAPSHOTS})),


use rule finetune as finetune_with_snapshots with:
    """Like finetune, for methods that keep `snapshots`: weights saved at equal distances."""
    output:
        **TRAINED,
        snapshots=directory(f"{MODEL}/snapshots"),
    wildcard_constraints:
        model=rounds_of(KEEP_SNAPSHOTS),
