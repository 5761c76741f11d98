"""Write an experiment file for your own images, from a folder of images and a folder of masks.

Some images may have no mask. Both folders are used in place and only read. The command prints what
it found and assumed; with --look it stops there. Then it measures some training steps on this
machine, for about half a minute, and chooses an image size and numbers of steps that fit into
--hours. With --update it writes the file of the next study, which includes the masks and images
that were added since.
"""

import argparse
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

from pydantic import TypeAdapter, ValidationError

from dst_cbc.cli import Parser, main
from dst_cbc.own_images import (
    annotated,
    draft,
    experiment_text,
    exported_lists,
    inspection,
    next_study,
)
from dst_cbc.own_images.class_list import FORM, ClassList
from dst_cbc.own_images.draft import Draft, Machine
from dst_cbc.own_images.inspection import Inspection
from dst_cbc.planning import cost
from dst_cbc.planning.plan import load_plan
from dst_cbc.runtime import escape, pool
from dst_cbc.runtime.devices import cuda_is_likely, free_memory
from dst_cbc.runtime.errors import DataError
from dst_cbc.runtime.files import write_text
from dst_cbc.runtime.paths import make_folder
from dst_cbc.runtime.reading import read_ids, read_text
from dst_cbc.settings.base import Bands, StudyName
from dst_cbc.settings.data import AnnotationSettings, GroupPattern, NamePattern, PairSettings
from dst_cbc.settings.yaml_files import MOST_BYTES

REPOSITORY = Path(__file__).resolve().parents[1]
IMPORT_SECONDS = 5
"""Time that `import torch` and the first network take."""


def parse():
    parser = Parser(__doc__)
    for name, what in (
        ("--images", "folder of images; subfolders are included"),
        (
            "--labels",
            "folder of masks; each has the name of its image, perhaps with an ending such as "
            "_mask; an export of CVAT that has the folder SegmentationClass stands for that "
            "folder. Or a file or folder of annotations, as labeling tools export them",
        ),
        (
            "--update",
            "instead of --images and --labels: experiment file whose folders have new masks or "
            "images; the next file gets a new name, and its training starts from the last model",
        ),
    ):
        parser.add_argument(name, type=Path, metavar="PATH", help=what)
    for name, file in (("image", "an image"), ("mask", "a mask")):
        parser.add_argument(
            f"--{name}-name",
            type=name_pattern,
            metavar="PATTERN",
            help=f"pattern of the file name of {file} without its ending; {{}} stands for the part "
            f"that images and masks share: '{{}}_{name}' (default: guessed from the names)",
        )
    parser.add_argument("--name", help="name of the study (default: from the folder's name)")
    parser.add_argument(
        "--hours",
        type=float,
        default=8.0,
        help="hours that the whole run may take on this machine (default 8)",
    )
    parser.add_argument(
        "--no-control",
        dest="control",
        action="store_false",
        help="leave out the control, `supervised-long`, which takes a third of the time: it trains "
        "on the labeled images only, and shows whether the unlabeled images have helped",
    )
    parser.add_argument(
        "--group",
        type=group_pattern,
        metavar="REGEX",
        help="regular expression, searched in an image's id; its first part in parentheses is the "
        "image's group, such as a slide or video (default: guessed from the names)",
    )
    parser.add_argument(
        "--unannotated",
        choices=get_args(AnnotationSettings.model_fields["unannotated"].annotation),
        default="background",
        help="for annotations: pixels outside of all shapes are of the class `background`, or have "
        "no class (default background)",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="for annotations: leave out shapes of images that are not there",
    )
    parser.add_argument(
        "--classes",
        type=Path,
        metavar="PATH",
        help=f"file of classes; {FORM} "
        "(default: labelmap.txt or _classes.csv, as CVAT and Roboflow export them with masks)",
    )
    parser.bands("the first, or the first three, of at most four")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="experiment file to write (default: NAME.yaml in the current folder)",
    )
    parser.add_argument(
        "--look",
        action="store_true",
        help="only print what is found and assumed; measure and write nothing",
    )
    arguments = parser.parse_args()
    if bool(arguments.images and arguments.labels) == bool(arguments.update):
        parser.error("give --images and --labels, or --update")
    arguments.name = parser.checked("--name", StudyName, arguments.name)
    arguments.bands = parser.checked("--bands", Bands, arguments.bands)
    if arguments.look and arguments.update:
        parser.error("--look needs --images and --labels")
    return arguments


def group_pattern(text: str) -> str:
    try:
        return TypeAdapter(GroupPattern).validate_python(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(error.errors()[0]["msg"]) from None


def name_pattern(text: str) -> str:
    try:
        return TypeAdapter(NamePattern).validate_python(text)
    except ValidationError:
        raise argparse.ArgumentTypeError(
            f"found {text!r}; expected a file name with one {{}}, such as '{{}}_mask'"
        ) from None


def run() -> None:
    arguments = parse()
    if arguments.update:
        update(arguments.update, arguments.name, arguments.out)
    else:
        start(arguments)


def update(file: Path, name: str | None, out: Path | None) -> None:
    """Write the next experiment file. Images keep the subset that they have."""
    experiment, records, plan = load_plan(REPOSITORY, [file], {})
    study = Path("results", experiment.name)

    def is_taken(name: str) -> bool:
        return Path(f"{name}.yaml").exists() or Path("results", name).exists()

    name = name or next_study.next_name(experiment.name, is_taken)
    out = out or Path(f"{name}.yaml")
    if out.exists():
        raise DataError(f"{out}: exists already; choose another --name, or remove it")
    lists = study.glob("splits/*.labeled.txt")
    before = {id for path in lists for id in read_ids(path)}
    lines = next_study.describe_changes(plan, records, before, Path(experiment.data))
    print(escape.terminal("\n".join(lines)))
    model = next_study.model_to_continue(plan, study)
    if model:
        print(f"start_from: {model}")
    elif any(split.stage.fold for split in plan.splits.values()):
        print(
            f"training starts anew: the models of {study} have seen the masks that each fold holds "
            "out to compare models"
        )
    else:
        print(f"{study} has no model to start from")
    text = next_study.renewed(read_text(file, MOST_BYTES), name, model and str(model))
    write_text(out, text)
    print(f"written: {out}; {study} is kept. Next: snakemake --cores all --configfile {out}")
    print(experiment_text.result(name))


def start(arguments) -> None:
    name = arguments.name or draft.study_name(arguments.images.resolve().name)
    out = arguments.out or Path(f"{name}.yaml")
    study = Path("results", name)
    begun = study.exists() and {path.name for path in study.iterdir()} != {"masks"}
    taken = out if out.exists() else study if begun else None
    if taken and not arguments.look:
        raise DataError(f"{taken}: exists already; choose another --name, or remove it")
    images, labels = exported_lists.folders_of(arguments.images, arguments.labels)
    root, folders = inspection.common_folder(images, labels)
    cores = pool.usable_cores()
    if annotated.holds_annotations(root, folders):
        with masks_folder(study, arguments.look) as masks:
            found, listed, annotations = of_annotations(arguments, root, folders, cores, masks)
    else:
        found, listed, annotations = *of_masks(arguments, root, folders, cores), None
    ids, stacks = [id for id, _, _ in found.pairs], inspection.stacks_of(found.pairs)
    group = arguments.group or inspection.guess_group(ids, found.masked, stacks)
    machine = Machine(cuda_is_likely(), min(cores, 8), 1)
    proposed = draft.make(name, found, group, machine, listed, arguments.control)
    print(escape.terminal("\n".join(experiment_text.describe(proposed))), flush=True)
    if arguments.look:
        return
    text = fit(proposed, annotations, arguments.hours, str(root))
    write_text(out, text)
    print(f"written: {out}. Read it, then run: snakemake --cores {cores} --configfile {out}")
    print(experiment_text.result(name))


def of_masks(
    arguments, root: Path, folders: PairSettings, cores: int
) -> tuple[Inspection, ClassList | None]:
    """What folders of images and masks hold, and the list of classes that was given."""
    for option, is_given in (
        ("--unannotated", arguments.unannotated != annotated.BACKGROUND),
        ("--partial", arguments.partial),
    ):
        if is_given:
            raise DataError(
                f"{option}: is for annotations, but {arguments.labels} is a folder of masks; "
                "remove it"
            )
    names = inspection.with_names(root, folders, arguments.image_name, arguments.mask_name)
    files = inspection.account(root, names)
    print(escape.terminal("\n".join(files.lines())), flush=True)
    if arguments.classes:
        listed = exported_lists.read(arguments.classes)
    elif listed := exported_lists.find(root / folders.labels):
        print(escape.terminal("\n".join(exported_lists.describe(listed))), flush=True)
    return inspection.inspect(root, names, cores, listed, arguments.bands), listed


def of_annotations(
    arguments, root: Path, folders: PairSettings, cores: int, masks: Path
) -> tuple[Inspection, ClassList, AnnotationSettings]:
    """What images and annotations hold, of which masks are drawn into the folder `masks`."""
    for option in ("classes", "image_name", "mask_name"):
        if getattr(arguments, option):
            raise DataError(
                f"--{option.replace('_', '-')}: is for folders of masks, but {arguments.labels} "
                "holds annotations; remove it"
            )
    found = annotated.propose(root, folders, arguments.unannotated, arguments.partial, masks)
    print(escape.terminal("\n".join(found.notes)), flush=True)
    drawn = (masks, found.pairs)
    seen = inspection.inspect(root, folders, cores, found.listed, arguments.bands, drawn)
    return seen, found.listed, found.settings


@contextmanager
def masks_folder(study: Path, is_look: bool) -> Iterator[Path]:
    """Yield the folder for masks that are drawn: that of the study, or one that is removed."""
    if not is_look:
        yield study / "masks"
        return
    state = Path("results/.resume")
    make_folder(state)
    with tempfile.TemporaryDirectory(dir=state) as folder:
        yield Path(folder, "masks")


def fit(proposed: Draft, annotations: AnnotationSettings | None, hours: float, root: str) -> str:
    """Return the text of the experiment file, with sizes and steps that fit; print the cost."""
    command = f"python scripts/new_experiment.py {shlex.join(sys.argv[1:])}"
    state = Path("results/.resume")
    make_folder(state)
    with tempfile.TemporaryDirectory(dir=state) as folder:

        def planned(proposed: Draft):
            path = Path(folder, "experiment.yaml")
            write_text(path, experiment_text.text(proposed, root, command, annotations))
            return load_plan(REPOSITORY, [path], {})

        def work_of(proposed: Draft) -> tuple[cost.Schedule, cost.Schedule]:
            experiment, records, plan = planned(proposed)
            study = Path("results", experiment.name)
            return cost.schedule(plan, records, study, True), cost.schedule(
                plan, records, study, False
            )

        def measured_with(proposed: Draft) -> cost.Measured:
            _, records, plan = planned(proposed)
            measured = cost.measure(plan, records, Path(folder, "cost"))
            if measured is None:
                raise DataError(
                    f"{root}: the speed of training cannot be measured, because no image with a "
                    "mask can be opened now, in training or in val; run the command again"
                )
            return measured

        # Several threads may be slower than one if other programs use the CPU, too: measure both.
        machine = proposed.machine
        numbers = {machine.threads} if machine.cuda else {1, machine.cores}
        trials = [
            replace(proposed, machine=replace(machine, threads=threads))
            for threads in sorted(numbers, reverse=True)
        ]
        seconds = IMPORT_SECONDS + len(trials) * 2 * cost.SECONDS
        print(f"measuring the speed of training, about {seconds:.0f} s", flush=True)
        pairs = [(measured_with(trial), trial) for trial in trials]
        measured, proposed = min(pairs, key=lambda pair: pair[0].step)
        found, enough = draft.fitted(proposed, work_of, measured, hours)
        while not enough and (halved := draft.smaller(proposed)):
            print(
                f"too slow for {hours:g} hours: measuring with images of half the size", flush=True
            )
            proposed, measured = halved, measured_with(halved)
            found, enough = draft.fitted(proposed, work_of, measured, hours)
        experiment, records, plan = planned(found)
        text = experiment_text.text(found, root, command, annotations)
    study = Path("results", experiment.name)
    cost.remember(plan, study, measured)
    if not enough:
        print(f"WARNING: {hours:g} hours are too few on this machine; the time it needs is below")
    if found.hours_of_folds:
        print("\n".join(experiment_text.too_few_hours(found, hours)))
    print(f"assumed: network {found.backbone}, images resized by {found.scale:g}")
    work, free = cost.schedule(plan, records, study), shutil.disk_usage("results").free
    print("\n".join(cost.describe(work, measured, 1, free, free_memory())))
    return text


if __name__ == "__main__":
    main(run)
