"""Outputs for people: table, figures, a contact sheet per round, a gallery page per method."""


rule tables:
    """Write the table of the study from summary.csv: mean and deviation over the split seeds.

    table.csv has every round; table.md and table.tex have the last round of each method.
    """
    input:
        f"{STUDY}/summary.csv",
    output:
        csv=report(f"{REPORT}/table.csv", caption="../report/table.rst", category="Tables"),
        markdown=f"{REPORT}/table.md",
        latex=f"{REPORT}/table.tex",
    log:
        f"{STUDY}/logs/{Path(REPORT).name}.tables.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    params:
        stage=stage("tables.py"),
        settings=EXPERIMENT.report.canonical(),
        study=subpath(input[0], parent=True),
        folder=subpath(output.csv, parent=True),
        what=WHAT_IS_SHOWN,
    shell:
        "{params.stage} {params.study:q} --settings {params.settings:q} --out {params.folder:q}"
        " >> {log:q} 2>&1"


rule figures:
    """Draw the figures of the study, each as SVG and PNG, from the files of its rounds."""
    input:
        summary=f"{STUDY}/summary.csv",
        thresholds=of_labeled_rounds("thresholds.csv"),
        manifests=of_labeled_rounds("pseudo_labels.csv"),
        quality=of_labeled_rounds("pseudo_labels.quality.csv"),
        agreement=[f"{folder}/agreement.csv" for folder in LABELED_METHODS],
        histograms=sorted({f"{STUDY}/{m.labeling('histogram', '.npz')}" for m in LABELED_ROUNDS}),
    output:
        [
            report(
                f"{REPORT}/{figure}.svg",
                caption=f"../report/{figure}.rst",
                category="Figures",
                labels={"figure": figure},
            )
            for figure in FIGURES
        ],
        [f"{REPORT}/{figure}.png" for figure in FIGURES],
    log:
        f"{STUDY}/logs/{Path(REPORT).name}.figures.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    params:
        stage=stage("figures.py"),
        study=subpath(input.summary, parent=True),
        folder=subpath(output[0], parent=True),
        subset=SHOWN_SUBSET,
        figures=FIGURES,
        what=WHAT_IS_SHOWN,
    shell:
        "{params.stage} {params.study:q} --subset {params.subset} --out {params.folder:q}"
        " {params.figures} >> {log:q} 2>&1"


rule contact_sheet:
    """Draw a dozen unlabeled images with their mask, prediction, pseudo label and confidence."""
    input:
        index=ancient(INDEX),
        images=images,
        unlabeled=f"{STUDY}/splits/{{division}}.unlabeled.txt",
        predictions=labeled_from("predictions", ".h5"),
        labels=pseudo_label_folder,
        manifest=read_by_training("pseudo-labels"),
    output:
        report(
            f"{ROUND}/contact_sheet.jpg",
            caption="../report/contact_sheet.rst",
            category="Pseudo labels",
            subcategory="{division}",
            labels={"method": "{method}", "round": "{round}"},
        ),
    log:
        f"{STUDY}/logs/{{division}}/{{method}}/round{{round}}/contact_sheet.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    params:
        stage=stage("contact_sheet.py", "data"),
        settings=PLAN.dataset.canonical(),
    shell:
        "{params.stage} --settings {params.settings:q} --index {input.index:q}"
        " --unlabeled {input.unlabeled:q}"
        " --predictions {input.predictions:q} --labels {input.labels:q} --out {output:q}"
        " >> {log:q} 2>&1"


rule gallery:
    """Make a page to browse the unlabeled images of a method, round by round.

    agreement.csv has a row per image and round: how far its labels agree with the round before.
    """
    input:
        index=ancient(INDEX),
        images=images,
        unlabeled=f"{STUDY}/splits/{{division}}.unlabeled.txt",
        # Predictions are read where they exist, but are no inputs: for one more round, Snakemake
        # would make deleted predictions again, and then every file that was made from them.
        manifests=manifests_of_method,
        settings=settings_of_method,
    output:
        page=f"{STUDY}/{{division}}/{{method}}/gallery.html",
        agreement=f"{STUDY}/{{division}}/{{method}}/agreement.csv",
    log:
        f"{STUDY}/logs/{{division}}/{{method}}/gallery.log",
    conda:
        "../../envs/dst-cbc.yaml"
    resources:
        runtime=check_time,
    params:
        stage=stage("gallery.py", "data", "keep-predictions"),
        settings=PLAN.dataset.canonical(),
        rounds=labeled_rounds_on_disk,
        predictions=predictions_of_rounds,
    shell:
        "{params.stage} --settings {params.settings:q} --index {input.index:q}"
        " --unlabeled {input.unlabeled:q} --rounds {params.rounds:q}"
        " --predictions {params.predictions:q}"
        " --agreement {output.agreement:q} --out {output.page:q} >> {log:q} 2>&1"
