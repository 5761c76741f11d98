"""Export of a model, asked for by name: `snakemake results/demo/…/round5/export/model.onnx`."""


rule export:
    """Export a model as model.onnx (ONNX) and model.pt2 (torch.export), with a model card.

    Fails if an exported file gives other masks than PyTorch.
    """
    input:
        index=ancient(INDEX),
        images=images,
        model=f"{MODEL}/model.pt",
        metrics=f"{MODEL}/metrics.json",
    output:
        onnx=f"{MODEL}/export/model.onnx",
        program=f"{MODEL}/export/model.pt2",
        card=f"{MODEL}/export/model.md",
    log:
        f"{STUDY}/logs/{{division}}/{{model}}/export.log",
    conda:
        "../../envs/dst-cbc.yaml"
    threads: EXPERIMENT.compute_threads
    params:
        stage=stage("export.py"),
        images=str(DATA),
        folder=subpath(output.onnx, parent=True),
    shell:
        "{params.stage} --model {input.model:q} --images {params.images:q}"
        " --index {input.index:q} --out {params.folder:q} --threads {threads} >> {log:q} 2>&1"
