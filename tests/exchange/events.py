"""Prints the scalars and texts that TensorBoard's own reader finds in a folder.

    events.py FOLDER
"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

reader = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0})
reader.Reload()
scalars = {
    tag: [[event.step, event.value, event.wall_time] for event in reader.Scalars(tag)]
    for tag in reader.Tags()["scalars"]
}
texts = {
    tag: reader.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
    for tag in reader.Tags()["tensors"]
}
print(json.dumps({"scalars": scalars, "texts": texts}))
