"""TensorBoard logs: one whole file per epoch, so that a full disk or a kill leaves no half of one."""

import io
import re
import time
from collections.abc import Mapping
from pathlib import Path

from utils.whole_files import write_bytes, writing

EVENTS = "events.out.tfevents"
OF_AN_EPOCH = re.compile(rf"{EVENTS}\.(\d+)\.epoch")
FORM = "brain.Event:2"


def forget_epochs(folder: Path, first: int) -> None:
    """Remove the logs of an epoch and of those behind it; from epoch 0 on all that are there."""
    with writing(folder):
        for file in folder.glob(f"{EVENTS}*"):
            epoch = OF_AN_EPOCH.fullmatch(file.name)
            if first == 0 or (epoch and int(epoch[1]) >= first):
                file.unlink(missing_ok=True)


def log_epoch(folder: Path, epoch: int, values: Mapping[str, float]) -> None:
    """Write the values of an epoch, by their names. Raises UserError where the file cannot be written."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    now = time.time()
    summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
    buffer = io.BytesIO()
    records = RecordWriter(buffer)
    for event in (Event(wall_time=now, file_version=FORM), Event(wall_time=now, step=epoch, summary=summary)):
        records.write(event.SerializeToString())
    write_bytes(folder / f"{EVENTS}.{epoch:06d}.epoch", buffer.getbuffer())
