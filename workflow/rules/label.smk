"""Pseudo labels of a round (Algorithm 1): predictions, their histogram, thresholds, label PNGs."""


rule predict:
    """Predict the unlabeled images with the model of round 0: class and confidence of every pixel.

    The histogram counts the pixels by class and confidence. With several shards, this rule joins
    the files of predict_shard.
    """
    input:
        index=index_for(predicted_files, f"{MODEL}/histogram{{variant}}.npz"),
        images=images,
        unlabeled=f"{STUDY}/splits/{{division}}.unlabeled.txt",
        model=f"{MODEL}/model.pt",
        shards=shards_for(
            f"{MODEL}/predictions{{variant}}.{SHARD}.h5", f"{MODEL}/histogram{{variant}}.npz"
        ),
        # Found beside the shards; named as inputs so that Snakemake keeps these temporary files.
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
    """Predict the unlabeled images with the model of a later round, for the labels of the next.

    `keep_predictions: supervised` deletes these predictions after use.
    """
    output:
        predictions=later_predictions(f"{MODEL}/predictions{{variant}}.h5"),
        histogram=f"{MODEL}/histogram{{variant}}.npz",
    wildcard_constraints:
        model=r".+/round[1-9]\d*",


use rule predict as predict_shard with:
    """Predict one of several shards of the unlabeled images (`shards` in the experiment file)."""
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
    """Compute each class's confidence threshold from the histogram of the predictions.

    The threshold keeps the share of pixels that the method's curriculum sets for the round.
    """
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
    """Label the predicted pixels that reach their thresholds: one PNG per unlabeled image.

    The manifest pseudo_labels.csv has one row per PNG; pseudo_labels.quality.csv compares the
    labels with masks, by class, where masks exist. A file thresholds.edited.csv is used in place
    of thresholds.csv. With several shards, this rule joins the folders of label_shard.
    """
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
        # Made with masks of unlabeled images, so no rule that makes a model may read it.
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
        settings=labeling_settings,
        options=labeling_options,
        shards=shard_options,
    shell:
        "{params.stage} --settings {params.settings:q} --index {input.index:q}"
        " --unlabeled {input.unlabeled:q} {params.options} --thresholds {input.thresholds:q}"
        " --out {output.labels:q} {params.shards} >> {log:q} 2>&1"


use rule pseudo_labels as label_shard with:
    """Label one of several shards of the unlabeled images (`shards` in the experiment file)."""
    output:
        labels=temp(directory(f"{ROUND}/pseudo_labels.{SHARD}")),
    log:
        f"{STUDY}/logs/{{division}}/{{method}}/round{{round}}/pseudo_labels.{SHARD}.log",
