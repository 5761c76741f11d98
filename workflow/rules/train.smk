"""Training: from initial weights on labeled images, and round by round on pseudo labels too."""


rule train:
    input:
        index=index_for(training_files, "{model}/model.pt"),
        images=images,
        labeled=f"{STUDY}/splits/{{division}}.labeled.txt",
        weights=initial_weights,
    output:
        model=f"{STUDY}/{{division}}/{{model}}/model.pt",
        last=f"{STUDY}/{{division}}/{{model}}/last.pt",
        settings=f"{STUDY}/{{division}}/{{model}}/settings.json",
        history=f"{STUDY}/{{division}}/{{model}}/history.csv",
        run=f"{STUDY}/{{division}}/{{model}}/run.json",
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
        settings=model_settings,
        files=digest_of(training_files),
        folder=subpath(output.model, parent=True),
        state=f"{STATE}/{{division}}/{{model}}/train",
        board=f"{STUDY}/tensorboard/{{division}}/{{model}}",
        options=training_options,
    shell:
        'exec "$PYTHON" "$SCRIPTS/train.py" --settings {params.settings:q} --data "$DATA"'
        " --index {input.index:q} --labeled {input.labeled:q} {params.options}"
        " --out {params.folder:q} --resume {params.state:q} --board {params.board:q}"
        ' --device "$DEVICE" --workers "$WORKERS" --save-seconds "$SAVE_SECONDS"'
        " >> {log:q} 2>&1"


use rule train as finetune with:
    input:
        index=index_for(training_files, "{method}/round{round}/model.pt"),
        images=images,
        labeled=f"{STUDY}/splits/{{division}}.labeled.txt",
        weights=weights_of_round,
        previous=read_by_training("previous"),
        # The manifest speaks for the PNGs: the time of a folder says nothing.
        labels=pseudo_label_folder,
        pseudo_labels=read_by_training("pseudo-labels"),
        unlabeled=read_by_training("unlabeled"),
        predictions=read_by_training("predictions"),
        thresholds=read_by_training("thresholds"),
        labeling_model=read_by_training("labeling-model"),
    output:
        model=f"{ROUND}/model.pt",
        last=f"{ROUND}/last.pt",
        settings=f"{ROUND}/settings.json",
        history=f"{ROUND}/history.csv",
        run=f"{ROUND}/run.json",
    log:
        f"{STUDY}/logs/{{division}}/{{method}}/round{{round}}/finetune.log",
    benchmark:
        f"{STUDY}/benchmarks/{{division}}/{{method}}/round{{round}}/finetune.tsv"
    wildcard_constraints:
        method="|".join(map(re.escape, sorted({*SELF_TRAINED} - {*KEEP_SNAPSHOTS}))) or "none",
    params:
        settings=model_settings,
        files=digest_of(training_files),
        folder=subpath(output.model, parent=True),
        state=f"{STATE}/{{division}}/{{method}}/round{{round}}/train",
        board=f"{STUDY}/tensorboard/{{division}}/{{method}}/round{{round}}",
        options=training_options,


use rule finetune as finetune_with_snapshots with:
    output:
        model=f"{ROUND}/model.pt",
        last=f"{ROUND}/last.pt",
        settings=f"{ROUND}/settings.json",
        history=f"{ROUND}/history.csv",
        run=f"{ROUND}/run.json",
        snapshots=directory(f"{ROUND}/snapshots"),
    wildcard_constraints:
        method="|".join(map(re.escape, KEEP_SNAPSHOTS)) or "none",
