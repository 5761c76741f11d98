"""The data set: draw it (for the demo), check it, split it into labeled and unlabeled images."""


rule draw_digits:
    """Draw the demo's data set: scenes of scikit-learn's handwritten digits, with their masks."""
    output:
        str(Path(EXPERIMENT.data, "scenes.json")),
    log:
        f"{STUDY}/logs/draw_digits.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    params:
        stage=stage("draw_digits.py"),
        settings=EXPERIMENT.digits.canonical(),
        folder=subpath(output[0], parent=True),
    shell:
        "{params.stage} --settings {params.settings:q} --out {params.folder:q} >> {log:q} 2>&1"


rule check_data:
    """Decode every image and mask of the data set, and write dataset.csv, one row per image.

    Fails with the names of all bad files at once.
    """
    input:
        scenes=drawn_scenes,
        lists=imported_lists,
    output:
        INDEX,
    log:
        f"{STUDY}/logs/check_data.log",
    conda:
        "../../envs/dst-cbc.yaml"
    threads: READERS
    resources:
        runtime=check_time,
        mem_mb=memory,
    params:
        stage=stage("check_data.py", "data"),
        settings=PLAN.dataset.canonical(),
        files=FILES.used([record.id for record in RECORDS], True),
    shell:
        "{params.stage} --settings {params.settings:q} --need-label {input.lists:q}"
        " --out {output:q} --processes {threads} >> {log:q} 2>&1"


rule split:
    """Divide the training images of dataset.csv into two lists of ids: labeled and unlabeled."""
    input:
        index=index_for_split,
        lists=imported_list_of,
    output:
        labeled=f"{STUDY}/splits/{{division}}.labeled.txt",
        unlabeled=f"{STUDY}/splits/{{division}}.unlabeled.txt",
    log:
        f"{STUDY}/logs/{{division}}/split.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    params:
        stage=stage("split.py"),
        settings=split_settings,
        ids=digest(SUBSETS["train"]),
    shell:
        "{params.stage} --settings {params.settings:q} --index {input.index:q}"
        " --labeled {output.labeled:q} --unlabeled {output.unlabeled:q} >> {log:q} 2>&1"
