"""Train the networks that ship, and write their weights to gap_utils/assets.

    python -m tools.train_shipped [NAME ...]

Without names it trains all. It needs the full Fashion-MNIST (see gap_utils.data) and about
ten minutes. The runs are those of the study with seed 0; which seed ships was settled before
any was trained.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable

import torch
from safetensors.torch import save

from gap_utils.inference import evaluate
from gap_utils.models import ASSETS, TRAINED, build_convnet
from gap_utils.training import fit
from tools.run_study import best_level, load, map_of_answer, plan, put_in_clutter, try_levels

EPOCHS = 5
SEED = 0
NETWORKS = {
    "gap": {"head": "gap"},
    "gmp": {"head": "gmp"},
    "flatten": {"head": "flatten"},
    "gap_7x7": {"head": "gap", "batch_norm": True, "last_pool": False},
    "gap_places": {"head": "gap", "batch_norm": True, "last_pool": False},
    "gmp_places": {"head": "gmp", "batch_norm": True, "last_pool": False},
}


def train(name: str) -> tuple[bytes, dict]:
    """Train a network; return its weights as a file, and what is written about it."""
    network = NETWORKS[name]
    data, epochs, boxes = load("Fashion-MNIST"), EPOCHS, None
    source = f"{data.name}, {data.source}"
    if name.endswith("places"):
        run = next(
            run
            for run in plan()
            if (run.experiment, run.model, run.seed) == ("places", network["head"], SEED)
        )
        data, boxes = put_in_clutter(run)
        epochs, source = run.epochs, f"{run.data}, {run.pictures:,} pictures of the full set"
    torch.manual_seed(SEED)
    model = build_convnet(**network)
    history = fit(model, data, epochs, seed=SEED)
    content = save({key: value.contiguous() for key, value in model.state_dict().items()})
    told = {
        "network": network,
        "sha256": hashlib.sha256(content).hexdigest(),
        "data": source,
        "epochs": epochs,
        "seed": SEED,
        "torch": torch.__version__,
        "command": "python -m tools.train_shipped",
        "validation_accuracy": round(history.validation_accuracy.iloc[-1], 4),
        "test_accuracy": round(evaluate(model, data.test).accuracy, 4),
    }
    if boxes is not None:  # the level of box_from_map that finds the most clothes in validation
        maps = map_of_answer(model, data.validation.images)
        told["box_level"] = best_level(try_levels(maps, boxes["validation"]))
    return content, told


def main(names: Iterable[str]) -> None:
    """Train networks; then write their weights and what they are worth, beside what is there."""
    torch.set_num_threads(1)  # the order of the sums, and so the last digits, depend on it
    made = {}
    for name in names:
        made[name] = train(name)
        print(name, made[name][1]["test_accuracy"])
    table = json.loads(TRAINED.read_text()) if TRAINED.exists() else {}
    for name, (content, told) in made.items():
        (ASSETS / f"{name}.safetensors").write_bytes(content)
        table[name] = told
    TRAINED.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="of the networks; all if none")
    unknown = set(asked := parser.parse_args().names) - NETWORKS.keys()
    if unknown:
        parser.error(f"expected names of {', '.join(NETWORKS)}, got {', '.join(unknown)}")
    main(asked or NETWORKS)
