"""Pseudo labels of one round: predictions and their histogram, thresholds, PNGs (Algorithm 1)."""


rule predict:
    input:
        index=index_for(predicted_files, "supervised/histogram{view}.npz"),
        images=images,
        unlabeled=f"{STUDY}/splits/{{division}}.unlabeled.txt",
        model=f"{STUDY}/{{division}}/{{model}}/model.pt",
        shards=shards_for(
            f"{{model}}/predictions{{view}}.{SHARD}.h5", "{model}/histogram{view}.npz"
        ),
        # Beside them; named, so that they are kept until they are read.
        histograms=shards_for(
            f"{{model}}/predictions{{view}}.{SHARD}.npz", "{model}/histogram{view}.npz"
        ),
    output:
        predictions=f"{STUDY}/{{division}}/{{model}}/predictions{{view}}.h5",
        histogram=f"{STUDY}/{{division}}/{{model}}/histogram{{view}}.npz",
    log:
        f"{STUDY}/logs/{{division}}/{{model}}/predict{{view}}.log",
    benchmark:
        f"{STUDY}/benchmarks/{{division}}/{{model}}/predict{{view}}.tsv"
    wildcard_constraints:
        model="supervised",
    conda:
        "../../envs/dst-cbc.yaml"
    threads: EXPERIMENT.compute_threads
    resources:
        gpu=joining_gpus,
        cpus_per_task=CPUS,
        runtime=prediction_time,
        mem_mb=memory,
    params:
        settings=prediction_settings,
        files=digest_of(predicted_files),
        state=f"{STATE}/{{division}}/{{model}}/predict{{view}}",
    shell:
        'exec "$PYTHON" "$SCRIPTS/predict.py" --settings {params.settings:q} --data "$DATA"'
        " --index {input.index:q} --unlabeled {input.unlabeled:q} --model {input.model:q}"
        " --predictions {output.predictions:q} --histogram {output.histogram:q}"
        " --resume {params.state:q} --join {input.shards:q}"
        ' --device "$DEVICE" --workers "$WORKERS" >> {log:q} 2>&1'


use rule predict as predict_round with:
    input:
        index=index_for(predicted_files, "{model}/histogram{view}.npz"),
        images=images,
        unlabeled=f"{STUDY}/splits/{{division}}.unlabeled.txt",
        model=f"{STUDY}/{{division}}/{{model}}/model.pt",
        shards=shards_for(
            f"{{model}}/predictions{{view}}.{SHARD}.h5", "{model}/histogram{view}.npz"
        ),
        # Beside them; named, so that they are kept until they are read.
        histograms=shards_for(
            f"{{model}}/predictions{{view}}.{SHARD}.npz", "{model}/histogram{view}.npz"
        ),
    output:
        predictions=later_predictions(f"{STUDY}/{{division}}/{{model}}/predictions{{view}}.h5"),
        histogram=f"{STUDY}/{{division}}/{{model}}/histogram{{view}}.npz",
    wildcard_constraints:
        model=r".+/round[1-9]\d*",


rule predict_shard:
    input:
        index=index_for(predicted_files, "{model}/histogram{view}.npz"),
        images=images,
        unlabeled=f"{STUDY}/splits/{{division}}.unlabeled.txt",
        model=f"{STUDY}/{{division}}/{{model}}/model.pt",
    output:
        predictions=temp(f"{STUDY}/{{division}}/{{model}}/predictions{{view}}.{SHARD}.h5"),
        histogram=temp(f"{STUDY}/{{division}}/{{model}}/predictions{{view}}.{SHARD}.npz"),
    log:
        f"{STUDY}/logs/{{division}}/{{model}}/predict{{view}}.{SHARD}.log",
    benchmark:
        f"{STUDY}/benchmarks/{{division}}/{{model}}/predict{{view}}.{SHARD}.tsv"
    wildcard_constraints:
        model=r"supervised|.+/round[1-9]\d*",
    conda:
        "../../envs/dst-cbc.yaml"
    threads: EXPERIMENT.compute_threads
    resources:
        gpu=GPU,
        cpus_per_task=CPUS,
        runtime=prediction_time,
        mem_mb=memory,
    params:
        settings=prediction_settings,
        files=digest_of(predicted_files),
        state=f"{STATE}/{{division}}/{{model}}/predict{{view}}.{SHARD}",
    shell:
        'exec "$PYTHON" "$SCRIPTS/predict.py" --settings {params.settings:q} --data "$DATA"'
        " --index {input.index:q} --unlabeled {input.unlabeled:q} --model {input.model:q}"
        " --predictions {output.predictions:q} --histogram {output.histogram:q}"
        " --resume {params.state:q} --shard {wildcards.shard} {wildcards.shards}"
        ' --device "$DEVICE" --workers "$WORKERS" >> {log:q} 2>&1'


rule thresholds:
    input:
        labeled_from("histogram", ".npz"),
    output:
        f"{STUDY}/{{division}}/{{method}}/round{{round}}/thresholds.csv",
    log:
        f"{STUDY}/logs/{{division}}/{{method}}/round{{round}}/thresholds.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    params:
        settings=threshold_settings,
        classes=list(PLAN.dataset.classes),
    shell:
        'exec "$PYTHON" "$SCRIPTS/thresholds.py" --settings {params.settings:q} --histogram {input:q}'
        " --classes {params.classes:q} --out {output:q} >> {log:q} 2>&1"


rule pseudo_labels:
    input:
        index=ancient(INDEX),
        images=images,
        unlabeled=f"{STUDY}/splits/{{division}}.unlabeled.txt",
        predictions=labeling_predictions,
        model=labeling_model,
        computed=f"{STUDY}/{{division}}/{{method}}/round{{round}}/thresholds.csv",
        thresholds=thresholds_in_use,
        shards=shards_for(
            f"{{method}}/round{{round}}/pseudo_labels.{SHARD}",
            "{method}/round{round}/pseudo_labels.csv",
        ),
    output:
        labels=directory(f"{STUDY}/{{division}}/{{method}}/round{{round}}/pseudo_labels"),
        # Read by no rule: what it tells of masks may reach no model.
        quality=f"{STUDY}/{{division}}/{{method}}/round{{round}}/pseudo_labels.quality.csv",
        manifest=f"{STUDY}/{{division}}/{{method}}/round{{round}}/pseudo_labels.csv",
    log:
        f"{STUDY}/logs/{{division}}/{{method}}/round{{round}}/pseudo_labels.log",
    conda:
        "../../envs/dst-cbc.yaml"
    resources:
        gpu=joined_labeling_gpus,
        cpus_per_task=CPUS,
        runtime=labeling_time,
        mem_mb=memory,
    params:
        settings=PLAN.dataset.canonical(),
        options=labeling_options,
    shell:
        'exec "$PYTHON" "$SCRIPTS/pseudo_labels.py" --settings {params.settings:q} --data "$DATA"'
        " --index {input.index:q} --unlabeled {input.unlabeled:q}"
        " {params.options} --thresholds {input.thresholds:q}"
        " --out {output.labels:q} --join {input.shards:q}"
        ' --device "$DEVICE" --workers "$WORKERS" >> {log:q} 2>&1'


rule label_shard:
    input:
        index=ancient(INDEX),
        images=images,
        unlabeled=f"{STUDY}/splits/{{division}}.unlabeled.txt",
        predictions=labeling_predictions,
        model=labeling_model,
        computed=f"{STUDY}/{{division}}/{{method}}/round{{round}}/thresholds.csv",
        thresholds=thresholds_in_use,
    output:
        temp(directory(f"{STUDY}/{{division}}/{{method}}/round{{round}}/pseudo_labels.{SHARD}")),
    log:
        f"{STUDY}/logs/{{division}}/{{method}}/round{{round}}/pseudo_labels.{SHARD}.log",
    conda:
        "../../envs/dst-cbc.yaml"
    resources:
        gpu=labeling_gpus,
        cpus_per_task=CPUS,
        runtime=labeling_time,
        mem_mb=memory,
    params:
        settings=PLAN.dataset.canonical(),
        options=labeling_options,
    shell:
        'exec "$PYTHON" "$SCRIPTS/pseudo_labels.py" --settings {params.settings:q} --data "$DATA"'
        " --index {input.index:q} --unlabeled {input.unlabeled:q}"
        " {params.options} --thresholds {input.thresholds:q}"
        " --out {output:q} --shard {wildcards.shard} {wildcards.shards}"
        ' --device "$DEVICE" --workers "$WORKERS" >> {log:q} 2>&1'
