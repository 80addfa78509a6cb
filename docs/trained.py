"""Makes the trained models that come with the package, ``pyzoo/trained/``, from finished runs.

    python docs/trained.py RUNS                     all of them
    python docs/trained.py RUNS graph-vae-mnist     one

``RUNS/NAME`` is the run of each model, trained by the command that stands in :data:`MODELS`. Each model is packed, and measured
with its rounded weights: those are the numbers of its card.
"""

import dataclasses
import platform
import shutil
import sys
import textwrap
from pathlib import Path

import pyzoo
from pyzoo.training import Run, TrainedModel
from pyzoo.training.weights import Bits

TRAINED = Path(pyzoo.__file__).parent / "trained"

LATEST = "506fab1"
"""The commit of most trainings."""

MNIST = "MNIST (LeCun, Cortes and Burges), 60,000 training images; its authors state no license"


@dataclasses.dataclass(frozen=True)
class Shipped:
    """What a card says of a model, besides what its run says."""

    command: str
    """That trains it, without ``--out``."""
    commit: str
    """At which it was trained."""
    about: str
    """One sentence, which ``pyzoo list --trained`` prints."""
    use: str
    limits: str
    data: str
    metrics: tuple[str, ...]
    """Those of the report that the card shows."""
    bits: Bits = 16


MODELS = {
    "compvae-sines": Shipped(
        command="pyzoo train compvae-sines",
        commit=LATEST,
        about="CompVAE on curves made of one to four sines: takes a curve apart, and makes curves of chosen frequencies.",
        use="to see what a sum of correlated latents does; to start further training from nothing but its settings (`--like`)",
        limits="curves of the generator alone, of up to four parts: with more, subsets are worse from part to part",
        data="made by the generator of `pyzoo.data.sines`, section 5.1 of the paper",
        metrics=("reconstruction_r2", "subset_r2", "subset_r2/K6", "label_r2"),
    ),
    "graph-vae-mnist": Shipped(
        command="pyzoo train graph-vae --preset long --steps 160000",
        commit=LATEST,
        about="Graph VAE on MNIST: digits drawn from five latent nodes, whose dependencies were learned with the networks.",
        use="to draw and reconstruct digits, and to move one node and see what depends on it",
        limits="binarized 28 x 28 digits; all ten dependencies are kept, where the paper's model drops three",
        data=MNIST,
        metrics=("test_elbo", "test_log_likelihood_quick", "test_log_likelihood", "edges_kept"),
        bits=8,
    ),
    "tvae-mnist": Shipped(
        command="pyzoo train tvae",
        commit=LATEST,
        about="T-VAE on MNIST: infers an affine transformation from two views of a digit, and applies it to other digits.",
        use="to carry transformations from one image to another, and as an embedding of transformed digits",
        limits="five of the paper's 200 epochs; transformations as small as those in training (rotations to 20 degrees)",
        data=MNIST,
        metrics=("test_elbo", "knn_same", "knn_affnist", "rotation_error_degrees"),
        bits=8,
    ),
    "mib-digits": Shipped(
        command="pyzoo train mib-multimodal --preset digits",
        commit=LATEST,
        about="MIB's model of digits and their labels: what both share is separated from the hand that wrote.",
        use="to draw digits given a label, to label a digit, and to exchange what is private to images",
        limits="8 x 8 digits, enlarged to 28 x 28; trained for a minute",
        data="scikit-learn's digits (UCI optical recognition of handwritten digits), CC BY 4.0",
        metrics=("test_elbo", "cross_accuracy/digit_to_label", "cross_accuracy/label_to_digit", "joint_coherence"),
    ),
    "mib-fair-adult": Shipped(
        command="pyzoo train mib-fair",
        commit=LATEST,
        about="MIB's fair representation of the census table Adult: predicts the income and hides the sex.",
        use="to study how accuracy is traded for fairness",
        limits="not for decisions about people: its data are of 1994, and DEO is one notion of fairness among several",
        data="UCI Adult (Becker and Kohavi 1996), CC BY 4.0; needed to measure and to draw, in `$PYZOO_DATA`",
        metrics=("accuracy", "deo", "leakage", "leakage_floor"),
    ),
    "mib-fair-synthetic": Shipped(
        command="pyzoo train mib-fair --preset synthetic",
        commit=LATEST,
        about="MIB's fair representation of a made table, in which a sensitive attribute leaks through other columns.",
        use="to study how accuracy is traded for fairness, without data of people",
        limits="a made table",
        data="made by `pyzoo.data.tables`",
        metrics=("accuracy", "deo", "leakage", "leakage_floor"),
    ),
    "mib-ood": Shipped(
        command="pyzoo train mib-ood",
        commit=LATEST,
        about="MIB's prediction that holds in environments that training has not seen: classes of colored digits.",
        use="to see a prediction that does not go by the color, which tells the label in training only",
        limits="two classes of colored MNIST digits; a network that knows the environment's colors is more accurate there",
        data=MNIST,
        metrics=("accuracy_train_envs", "accuracy_held_out", "accuracy_test_env"),
    ),
    "mib-structure": Shipped(
        command="pyzoo train mib-structure",
        commit=LATEST,
        about="MIB's learned structure: which of several views depends on which latent, on data whose structure is known.",
        use="to look at learned masks",
        limits="made data of a few views",
        data="made by `pyzoo.data.planted`",
        metrics=("edges_correct", "structure_found", "edges"),
    ),
    "monet-tetrominoes": Shipped(
        command="pyzoo train monet --relation place --num-pieces 2 --precision bf16",
        commit="d67733d",
        about="MONet on scenes of two tetrominoes: takes them apart into slots without a label.",
        use="to segment such scenes, and beside mpp-monet-tetrominoes, whose slots are related",
        limits="32 x 32 scenes of two pieces; it draws no scenes, and knows of no relation",
        data="made by `pyzoo.data.scenes`",
        metrics=("ari_fg", "msc_fg", "reconstruction_mse", "relation_r2"),
    ),
    "mpp-monet-tetrominoes": Shipped(
        command="pyzoo train mpp-monet --relation place --num-pieces 2 --seed 1 --precision bf16",
        commit="d67733d",
        about="MONet with the message passing prior on two tetrominoes at mirrored places, a relation that it has learned.",
        use="to impute a slot from the others, to draw scenes, and as an example of the prior",
        limits="32 x 32 scenes of two pieces, whose places are related and whose colors are not",
        data="made by `pyzoo.data.scenes`",
        metrics=("ari_fg", "msc_fg", "reconstruction_mse", "relation_r2"),
    ),
    "genesis-sprites": Shipped(
        command="pyzoo train genesis --steps 12000 --precision bf16",
        commit="d67733d",
        about="Genesis on scenes of sprites: slots with an autoregressive prior, from which it draws scenes.",
        use="to take scenes of sprites apart, and to draw some",
        limits="32 x 32 scenes of up to four sprites, which it separates in part; it still improved when training was stopped",
        data="made by `pyzoo.data.scenes`, after Multi-dSprites",
        metrics=("ari_fg", "ari_fg_elsewhere", "msc_fg", "reconstruction_mse"),
    ),
}


def card(name: str, shipped: Shipped, model: TrainedModel) -> str:
    """The text of a model's ``README.md``."""
    results, settings = model.folder.results(), model.config["settings"]
    paper = model.recipe.about.paper
    hours = results["training_seconds"] / 3600
    minutes = round(60 * hours)
    took = f"{hours:.1f} hours" if hours >= 2 else f"{minutes} minutes" if minutes > 1 else "a minute"
    trained = (
        f"`{shipped.command}` at commit {shipped.commit}, seed {settings['seed']}: {model.step:,} steps in {took} on one core of "
        f"an {platform.machine()} machine, other work beside it"
    )
    bits = {32: "as they were trained", 16: "matrices in half precision", 8: "matrices in 8 bits, with a scale for each row"}
    rows = {
        "What it is": f"recipe `{model.config['recipe']}`, {results['parameters']:,} parameters, of: {paper}",
        "Intended use": shipped.use,
        "Limits": shipped.limits,
        "Data": shipped.data,
        "Trained by": trained,
        "Weights": f"{bits[shipped.bits]}; under the license of the package, Apache 2.0",
    }
    lines = [f"# {name}", "", *textwrap.wrap(shipped.about, 120), "", "| | |", "|---|---|"]
    lines += [f"| {what} | {text} |" for what, text in rows.items()]
    lines += [
        "",
        f"## Metrics, by `pyzoo evaluate {name}{' --full' if results['full'] else ''}`",
        "",
        "| metric | value |",
        "|---|---|",
    ]
    lines += [f"| `{metric}` | {results['metrics'][metric]:.4g} |" for metric in shipped.metrics]
    if results["note"]:
        lines += ["", f"({results['note']})"]
    lines += ["", "## In Python", "", "```python", "import pyzoo", "", f'trained = pyzoo.load("{name}")', "```", ""]
    return "\n".join(lines)


def make(name: str, run: Run) -> None:
    """Packs a run, measures what was packed and writes its card."""
    shipped = MODELS[name]
    shutil.rmtree(TRAINED / name, ignore_errors=True)
    model = run.pack(TRAINED / name, shipped.bits)
    results = run.folder.results()
    measured = model.measure(results["full"])
    model.folder.write_results({**results, "metrics": measured})
    (model.path / "README.md").write_text(card(name, shipped, model), encoding="utf-8")
    for metric in shipped.metrics:
        print(f"{name}: {metric} {results['metrics'][metric]:.5g} as trained, {measured[metric]:.5g} as packed")
    size = sum(file.stat().st_size for file in model.path.iterdir())
    print(f"{name}: {size / 1e6:.2f} MB", flush=True)


def main() -> None:
    """Makes those that are named on the command line, or all."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    runs, names = Path(sys.argv[1]), sys.argv[2:] or list(MODELS)
    for name in names:
        if name not in MODELS:
            sys.exit(f"there is no model '{name}' in docs/trained.py")
        if not (runs / name).exists():
            print(f"{name} has no run yet: {MODELS[name].command} --out {runs / name}")
        else:
            make(name, Run(runs / name))


if __name__ == "__main__":
    main()
