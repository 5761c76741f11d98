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
    shell:
        'exec "$PYTHON" "$SCRIPTS/train.py" --settings {params.settings:q} --data "$DATA"'
        " --index {input.index:q} --labeled {input.labeled:q} --out {params.folder:q}"
        " --resume {params.state:q} --board {params.board:q}"
        ' --device "$DEVICE" --workers "$WORKERS" --save-seconds "$SAVE_SECONDS"'
        " >> {log:q} 2>&1"


rule finetune:
    input:
        index=index_for(training_files, "{method}/round{round}/model.pt"),
        images=images,
        labeled=f"{STUDY}/splits/{{division}}.labeled.txt",
        previous=previous("model.pt"),
        # The manifest speaks for the PNGs: the time of a folder says nothing.
        labels=pseudo_label_folder,
        manifest=pseudo_labels_of,
        unlabeled=labels_itself,
        predictions=weights_of_labels,
    output:
        model=f"{STUDY}/{{division}}/{{method}}/round{{round}}/model.pt",
        last=f"{STUDY}/{{division}}/{{method}}/round{{round}}/last.pt",
        settings=f"{STUDY}/{{division}}/{{method}}/round{{round}}/settings.json",
        history=f"{STUDY}/{{division}}/{{method}}/round{{round}}/history.csv",
        run=f"{STUDY}/{{division}}/{{method}}/round{{round}}/run.json",
    log:
        f"{STUDY}/logs/{{division}}/{{method}}/round{{round}}/finetune.log",
    benchmark:
        f"{STUDY}/benchmarks/{{division}}/{{method}}/round{{round}}/finetune.tsv"
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
        state=f"{STATE}/{{division}}/{{method}}/round{{round}}/train",
        board=f"{STUDY}/tensorboard/{{division}}/{{method}}/round{{round}}",
        options=training_options,
    shell:
        'exec "$PYTHON" "$SCRIPTS/train.py" --settings {params.settings:q} --data "$DATA"'
        " --index {input.index:q} --labeled {input.labeled:q} --previous {input.previous:q}"
        " {params.options} --out {params.folder:q}"
        " --resume {params.state:q} --board {params.board:q}"
        ' --device "$DEVICE" --workers "$WORKERS" --save-seconds "$SAVE_SECONDS"'
        " >> {log:q} 2>&1"
