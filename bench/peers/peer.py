"""One peer as a process that run.py drives: prepares its model, then labels a folder for every line that it reads.

usage: peer.py JOB      JOB is JSON: peer, model, settings, precision, decode, cores

Prints one JSON line when it is ready and one for every pass. A line that it reads is JSON: photos (a folder), labels (the
file to make). Its clock runs from the first photo to the last durable label; what prepares the model is outside.
"""

import importlib
import json
import os
import pathlib
import sys
import time


def module_of(peer: str):
    """Imports the peer; the libraries read some of the environment only while they are loaded."""
    return importlib.import_module(f"{peer}_peer")


def photos_of(folder: str) -> list[str]:
    return [entry.path for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)]


def run_pass(peer, request: dict) -> dict:
    from label_table import LabelTable

    paths = photos_of(request["photos"])
    table = LabelTable(pathlib.Path(request["labels"]))
    started = time.monotonic()
    told = peer.label(paths, table)
    table.close()
    return {
        "photos": len(paths),
        # Ray Data makes its workers for every pass: it says when they were ready.
        "seconds": time.monotonic() - told.get("started", started),
        "decode_cpu_seconds": told["decode_cpu_seconds"],
    }


def main() -> int:
    job = json.loads(sys.argv[1])
    # Answers go to the real standard output; whatever the libraries print goes to standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if job["settings"].get("wait_policy"):
        os.environ["OMP_WAIT_POLICY"] = job["settings"]["wait_policy"]
    from photos import Decoder, read_model

    started = time.monotonic()
    model = read_model(pathlib.Path(job["model"]))
    module = module_of(job["peer"])
    peer = module.Peer(model, Decoder(model, job["decode"]), job["settings"], job["precision"], job["cores"])
    ready = {"prepare_seconds": time.monotonic() - started, "versions": module.versions()}
    print(json.dumps(ready | {"precision": peer.precision}), file=answers)
    for line in sys.stdin:
        print(json.dumps(run_pass(peer, json.loads(line))), file=answers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
