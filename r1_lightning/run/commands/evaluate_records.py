"""An evaluation whose samples are written down as they come, and what can be read from such records without the model.

Records lie beside an artefact, in `evaluations/` of the folder that holds it: the artefact itself is complete and never changes.
Those of a published checkpoint, whose folder is not ours, lie in `evaluations/` below `paths.root`. A folder's name ends in digits
of its protocol, so that the same command goes on with its own records, and another protocol begins anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r1_lightning.artefacts import lineage
from r1_lightning.artefacts.files import output_folder
from r1_lightning.artefacts.hf_folder import ImportedModel
from r1_lightning.artefacts.locks import locked
from r1_lightning.artefacts.progress import progress
from r1_lightning.evaluation import records
from r1_lightning.evaluation.protocol import Asking, Protocol, questions_digest
from r1_lightning.evaluation.recording import asked_by, blocks_to_draw, record, rules_of
from r1_lightning.evaluation.records import Records
from r1_lightning.evaluation.runner import render_table
from r1_lightning.evaluation.statements import how_sure
from r1_lightning.run.checks.evaluation import task_name
from r1_lightning.run.commands.evaluate import Prepared, table_title
from r1_lightning.types.errors import InvalidInput

PLACE = "evaluations"


def protocol_of(ready: Prepared, asked: Sequence[Asking]) -> Protocol:
    """Return the protocol of an evaluation that is ready to run."""
    artefact, evaluator = ready.artefact, ready.evaluator
    settings, template = evaluator.config, evaluator.template
    weights = artefact.fingerprint
    if isinstance(artefact, ImportedModel) and not weights:  # nobody has read its files for one yet
        weights = artefact.source.fingerprint()
    return Protocol(
        model=ready.name,
        weights=weights,
        benchmark=task_name(ready.config),
        questions=len(asked),
        questions_sha256=questions_digest(asked),
        template=template.name,
        form=template.form,
        forced_prefix=evaluator.forced_prefix,
        judge=type(rules_of(evaluator).accuracy).__name__,
        samples=settings.samples,
        sampling_temperature=settings.sampling_temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        seed=evaluator.seed,
        commit=lineage.commit(),
    )


def recorded(ready: Prepared, out: Path | None = None) -> Records:
    """Sample and judge what the records in `out` (None: the default place) still lack; returns all of them.

    Raises `InvalidInput` if they are of another protocol, or if another process writes them now.
    """
    asked = asked_by(ready.evaluator)
    protocol = protocol_of(ready, asked)
    folder = default_folder(ready, protocol) if out is None else out
    with output_folder(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(
        folder, waiting=_refuse
    ):  # first: half a line that `begin` cuts off may be one that another process writes
        found = records.begin(folder, protocol, asked)
        total = len(asked) * protocol.samples
        left = sum(map(len, blocks_to_draw(ready.evaluator, found))) * protocol.samples
        with progress(total, "evaluating", "completion", total - left) as bar:
            return record(ready.evaluator, ready.backbone, found, bar.update)


def _refuse(holder: str) -> None:
    raise InvalidInput(
        f"another process ({holder}) writes these records right now; wait for it, or choose another --out"
    )


def default_folder(ready: Prepared, protocol: Protocol) -> Path:
    """Return the place for the records of an evaluation (see the module)."""
    is_published = isinstance(ready.artefact, ImportedModel)
    root = Path(ready.config.paths.root) if is_published else ready.artefact.folder.parent
    return root / PLACE / f"{protocol.benchmark}-{protocol.model}-{protocol.digits}"


def told(found: Records) -> str:
    """Return the table of records, and what they say about its numbers."""
    protocol = found.protocol
    title = table_title(protocol.model, len(found.asked), protocol.samples)
    title += f"\n{protocol.benchmark} at temperature {protocol.sampling_temperature}, top-p {protocol.top_p}, at most "
    title += f"{protocol.max_new_tokens} tokens; template {protocol.template}, judge {protocol.judge}, commit {protocol.commit}"
    table = render_table(title, {protocol.model: found.measures()})
    return "\n".join([table, *how_sure(found)])


def checked(folder: Path) -> tuple[Records, str]:
    """Derive every number again from the records in `folder` alone; returns them, and a line that says so.

    Raises `InvalidInput` naming the first number that is not what results.json says.
    """
    measures = records.check(folder)
    found = records.read(folder)
    same = f"{len(measures)} measures derived again from {len(found.samples)} samples: equal to {records.RESULTS}"
    return found, f"{same} in {folder}"
