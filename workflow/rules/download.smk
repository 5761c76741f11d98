"""Downloads of public data sets; these rules run only if they are asked for by name."""


rule download_camvid:
    """Download CamVid into results/downloads/camvid, and check its contents."""
    output:
        directory("results/downloads/camvid"),
    log:
        "results/downloads/camvid.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    params:
        stage=lambda wildcards, input: command_of("download.py"),
        name=subpath(output[0], basename=True),
    shell:
        "{params.stage} {params.name} --out {output:q} >> {log:q} 2>&1"


use rule download_camvid as download_voc2012 with:
    """Download PASCAL VOC 2012 into results/downloads/voc2012, and check its SHA-256."""
    output:
        directory("results/downloads/voc2012"),
    log:
        "results/downloads/voc2012.log",


use rule download_camvid as download_sbd with:
    """Download the Semantic Boundaries Dataset (SBD), and check its SHA-256."""
    output:
        directory("results/downloads/sbd"),
    log:
        "results/downloads/sbd.log",


rule download_voc:
    """Combine VOC 2012 with the masks of SBD into one data set of 10582 training images."""
    input:
        voc="results/downloads/voc2012",
        sbd="results/downloads/sbd",
    output:
        directory("results/downloads/voc"),
    log:
        "results/downloads/voc.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    threads: READERS
    params:
        stage=lambda wildcards, input: command_of("build_trainaug.py"),
    shell:
        "{params.stage} --voc {input.voc:q} --sbd {input.sbd:q}"
        " --out {output:q} --processes {threads} >> {log:q} 2>&1"


use rule download_camvid as download_nuclei with:
    """Download nuclei in microscope images, and draw the masks of all nuclei of an image into one."""
    output:
        directory("results/downloads/nuclei"),
    log:
        "results/downloads/nuclei.log",


use rule download_camvid as download_sunnybrook with:
    """Download cardiac MRI of 45 patients, and cut out the heart."""
    output:
        directory("results/downloads/sunnybrook"),
    log:
        "results/downloads/sunnybrook.log",


# NOT OPENLY LICENSED. The publisher: "All data is subject to copyright and may only be used for
# non-commercial research. In case of use please cite our publication."
use rule download_camvid as download_cwfid with:
    """Download crop and weed in a field. ONLY FOR NON-COMMERCIAL RESEARCH: no open licence."""
    output:
        directory("results/downloads/cwfid"),
    log:
        "results/downloads/cwfid.log",
