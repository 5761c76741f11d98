"""Pseudo labels of one round: predictions and their histogram, thresholds, PNGs (Algorithm 1)."""


rule predict:
    input:
        index=index_for(predicted_files, f"{MODEL}/histogram{{variant}}.npz"),
        images=images,
        unlabeled=f"{STUDY}/splits/{{division}}.unlabeled.txt",
        model=f"{MODEL}/model.pt",
        shards=shards_for(
            f"{MODEL}/predictions{{variant}}.{SHARD}.h5", f"{MODEL}/histogram{{variant}}.npz"
        ),
        # Beside them; named, so that they are kept until they are read.
        histograms=shards_for(
            f"{MODEL}/predictions{{variant}}.{SHARD}.npz", f"{MODEL}/histogram{{variant}}.npz"
        ),
    output:
        predictions=f"{MODEL}/predictions{{variant}}.h5",
        histogram=f"{MODEL}/histogram{{variant}}.npz",
    log:
        f"{STUDY}/logs/{{division}}/{{model}}/predict{{variant}}.log",
    benchmark:
        f"{STUDY}/benchmarks/{{division}}/{{model}}/predict{{variant}}.tsv"
    wildcard_constraints:
        model="supervised",
    conda:
        "../../envs/dst-cbc.yaml"
    threads: EXPERIMENT.compute_threads
    resources:
        gpu=prediction_gpus,
        cpus_per_task=CPUS,
        runtime=prediction_time,
        mem_mb=memory,
    params:
        stage=stage("predict.py", "data", "device", "workers"),
        settings=prediction_settings,
        files=digest_of(predicted_files),
        state=f"{STATE}/{{division}}/{{model}}/predict{{variant}}",
        shards=shard_options,
    shell:
        "{params.stage} --settings {params.settings:q} --index {input.index:q}"
        " --unlabeled {input.unlabeled:q} --model {input.model:q}"
        " --predictions {output.predictions:q} --histogram {output.histogram:q}"
        " --resume {params.state:q} {params.shards} >> {log:q} 2>&1"


use rule predict as predict_round with:
    output:
        predictions=later_predictions(f"{MODEL}/predictions{{variant}}.h5"),
        histogram=f"{MODEL}/histogram{{variant}}.npz",
    wildcard_constraints:
        model=r".+/round[1-9]\d*",


use rule predict as predict_shard with:
    output:
        predictions=temp(f"{MODEL}/predictions{{variant}}.{SHARD}.h5"),
        histogram=temp(f"{MODEL}/predictions{{variant}}.{SHARD}.npz"),
    log:
        f"{STUDY}/logs/{{division}}/{{model}}/predict{{variant}}.{SHARD}.log",
    benchmark:
        f"{STUDY}/benchmarks/{{division}}/{{model}}/predict{{variant}}.{SHARD}.tsv"
    wildcard_constraints:
        model=r"supervised|.+/round[1-9]\d*",
    params:
        state=f"{STATE}/{{division}}/{{model}}/predict{{variant}}.{SHARD}",


rule thresholds:
    input:
        labeled_from("histogram", ".npz"),
    output:
        f"{ROUND}/thresholds.csv",
    log:
        f"{STUDY}/logs/{{division}}/{{method}}/round{{round}}/thresholds.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    params:
        stage=stage("thresholds.py"),
        settings=threshold_settings,
        classes=list(PLAN.dataset.classes),
    shell:
        "{params.stage} --settings {params.settings:q} --histogram {input:q}"
        " --classes {params.classes:q} --out {output:q} >> {log:q} 2>&1"


rule pseudo_labels:
    input:
        index=ancient(INDEX),
        images=images,
        unlabeled=f"{STUDY}/splits/{{division}}.unlabeled.txt",
        predictions=labeling_predictions,
        model=labeling_model,
        computed=f"{ROUND}/thresholds.csv",
        thresholds=thresholds_in_use,
        shards=shards_for(f"{ROUND}/pseudo_labels.{SHARD}", f"{ROUND}/pseudo_labels.csv"),
    output:
        labels=directory(f"{ROUND}/pseudo_labels"),
        # Read by no rule: what it tells of masks may reach no model.
        quality=f"{ROUND}/pseudo_labels.quality.csv",
        manifest=f"{ROUND}/pseudo_labels.csv",
    log:
        f"{STUDY}/logs/{{division}}/{{method}}/round{{round}}/pseudo_labels.log",
    conda:
        "../../envs/dst-cbc.yaml"
    resources:
        gpu=labeling_gpus,
        cpus_per_task=CPUS,
        runtime=labeling_time,
        mem_mb=memory,
    params:
        stage=stage("pseudo_labels.py", "data", "device", "workers"),
        settings=PLAN.dataset.canonical(),
        options=labeling_options,
        shards=shard_options,
    shell:
        "{params.stage} --settings {params.settings:q} --index {input.index:q}"
        " --unlabeled {input.unlabeled:q} {params.options} --thresholds {input.thresholds:q}"
        " --out {output.labels:q} {params.shards} >> {log:q} 2>&1"


use rule pseudo_labels as label_shard with:
    output:
        labels=temp(directory(f"{ROUND}/pseudo_labels.{SHARD}")),
    log:
        f"{STUDY}/logs/{{division}}/{{method}}/round{{round}}/pseudo_labels.{SHARD}.log",
