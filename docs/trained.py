"""Makes the trained models that come with the package, ``pyzoo/trained/``, from finished runs.

    python docs/trained.py RUNS                     all of them
    python docs/trained.py RUNS graph-vae-mnist     one
    python docs/trained.py --measure NAME...        their metrics and cards, after a change of what is measured
    python docs/trained.py --cards                  their cards and the page of all, after a change of this file

``RUNS/NAME`` is the run of each model, trained by the command that stands in :data:`MODELS`. Each model is packed, and measured
with its rounded weights: those are the numbers of its card.
"""

import dataclasses
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyzoo
from pyzoo.trained import trained
from pyzoo.training import Run, TrainedModel
from pyzoo.training.weights import Bits

TRAINED = Path(pyzoo.__file__).parent / "trained"
PAGE = Path(__file__).parent / "trained-models" / "index.md"

LATEST = "506fab1"
"""The commit of most trainings."""

MNIST = "MNIST (LeCun, Cortes and Burges), whose authors state no license; needed to measure and to draw figures"
GENERATED = "generated, without rights of others: "


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
    differs: str
    """In what it is not the paper's."""
    data: str
    metrics: dict[str, str]
    """Those of the report that the card shows, and what they are."""
    bits: Bits = 16
    commands: tuple[str, ...] = ("figures", "sample", "explore")
    """What it is good for."""


ELBO = {"test_elbo": "the evidence lower bound of test examples, in nats"}
LIKELIHOOD = {"test_log_likelihood_quick": "log-likelihood of 1,000 test images by 500 importance samples, in nats"}
SEPARATION = {
    "ari_fg": "adjusted Rand index of the pieces' pixels; 1 is a perfect separation",
    "ari_fg_elsewhere": "the same with the slots of another scene; slots that ignore the pieces have as much there",
    "msc_fg": "mean segmentation covering of the pieces",
    "reconstruction_mse": "mean squared error of reconstructions",
}
DRAWN = {"drawn_distance": "distance of drawn scenes' pieces from true ones in number, size, color and place; 0 is none"}
RELATION = {"relation_r2": "share of the variance of a piece's place that is explained where its slot is imputed from the others"}
LONG_RUN = (
    "warm-up of the KLs, batches of 128, another schedule of the learning rate and a decoder that all nodes feed; 349 epochs in "
    "place of 2,000"
)
FAIR = "the weight of the penalty rises, and held-out rows choose one of the representations on the way; the rate of u_x is added"
FAIRNESS = {
    "accuracy": "of a logistic regression on the representation",
    "deo": "difference of equal opportunity between the groups; 0 is fair in that sense",
    "leakage": "accuracy with which boosted trees read the sensitive attribute from the representation",
    "leakage_floor": "share of the larger group, which needs no representation",
}


def long_run(recipe: str, commit: str, about: str, use: str) -> Shipped:
    """A fixed structure of Graph VAE's table, after its longer training."""
    return Shipped(
        command=f"pyzoo train {recipe} --preset long --steps 160000",
        commit=commit,
        about=about,
        use=use,
        limits="binarized 28 x 28 digits",
        differs=LONG_RUN,
        data=MNIST,
        metrics={**ELBO, **LIKELIHOOD},
        bits=8,
    )


MODELS = {
    "compvae-sines": Shipped(
        command="pyzoo train compvae-sines --preset long --steps 60000 --grow-every 1200 --weight-steps 42000 --engine compiled",
        commit="5372fdc",
        about="CompVAE on curves of up to thirty sines: takes a curve apart, and makes curves of chosen frequencies.",
        use="to see what a sum of correlated latents does, and to take curves of the generator apart",
        limits="curves of the generator alone; sines of one frequency are told apart in part only",
        differs="smaller networks, and settings of ours (docs/results/compvae.md)",
        data=GENERATED + "`pyzoo.data.sines`, after section 4.2 of the paper",
        metrics={
            "reconstruction_r2": "share of the variance of curves of ten sines that reconstructions explain",
            "subset_r2": "the same of the curve without some of its sines",
            "subset_r2_repeated/K16": "the same of sixteen, some of one frequency; 0.835 is possible",
            "subset_r2_repeated/K30": "the same of thirty, more than in training; 0.8 is possible",
        },
        bits=8,
    ),
    "compvae-colors": Shipped(
        command="pyzoo train compvae-colors --encoder-width 192",
        commit="edbf869",
        about="CompVAE on images of one to four colored sites: leaves some out, and makes images of chosen places and colors.",
        use="to draw images from a list of places and colors, and to leave some of them out of an image",
        limits="images of the generator alone, of up to four sites; soft borders, and black that is not quite black",
        differs="smaller networks, up to four sites in place of 8, and settings of ours (docs/results/compvae.md)",
        data=GENERATED + "`pyzoo.data.colors`, after section 4.2 and appendix B.2 of the paper",
        metrics={
            "reconstruction_r2": "share of the variance of images of four sites that reconstructions explain",
            "subset_r2": "the same of the image without some of its sites",
            "label_r2": "the same of the image decoded from what places and colors alone tell",
        },
        bits=8,
    ),
    "graph-vae-mnist": Shipped(
        command="pyzoo train graph-vae --preset long --steps 160000",
        commit=LATEST,
        about="Graph VAE on MNIST: digits drawn from five latent nodes, each of which depends on those above it.",
        use="to draw and reconstruct digits, and to move one node and see what depends on it",
        limits="binarized 28 x 28 digits; all ten dependencies were kept, so that it is a fully connected VAE in the end",
        differs=LONG_RUN
        + "; gates learn ten times as fast and are settled in the first 6,000 steps; the paper's model drops three dependencies "
        "of ten",
        data=MNIST,
        metrics={
            **ELBO,
            **LIKELIHOOD,
            "edges_kept": "edges of the most likely graph, of ten",
        },
        bits=8,
    ),
    "tvae-mnist": Shipped(
        command="pyzoo train tvae",
        commit=LATEST,
        about="T-VAE on MNIST: infers an affine transformation from two views of a digit, and applies it to other digits.",
        use="to carry transformations from one image to another, and as an embedding of transformed digits",
        limits="transformations are carried over in part: some digits hardly turn (see `rotation_error_degrees`)",
        differs="five epochs in place of 200, a rate of 3e-3 that falls along a cosine; coherence of each triplet, with a weight "
        "of 100; T is scored by its prior, with a weight of 3",
        data=MNIST,
        metrics={
            **ELBO,
            "knn_same": "accuracy of 5 nearest neighbors on test images, in percent",
            "knn_affnist": "the same on images transformed as affNIST's",
            "rotation_error_degrees": "by how much a rotation that is carried over is off; without effect 12.5",
        },
        bits=8,
    ),
    "fc-vae-mnist": long_run(
        "fc-vae",
        commit="e8425ef",
        about="A fully connected VAE on MNIST: Graph VAE with all dependencies from the start, the third row of its table.",
        use="to compare Graph VAE with: the same networks with every dependency between latents",
    ),
    "ladder-vae-mnist": long_run(
        "ladder-vae",
        commit="e8425ef",
        about="A Ladder VAE on MNIST: five latent nodes in a chain, the second row of Graph VAE's table.",
        use="to compare Graph VAE with: the same networks with dependencies along a chain alone",
    ),
    "vae-mnist": long_run(
        "vae",
        commit="9600d94",
        about="A VAE of Graph VAE's size on MNIST, whose five latent nodes are independent: the first row of its table.",
        use="to compare Graph VAE with: as many parameters, by a wider encoder, and no dependencies between latents",
    ),
    "mib-digits": Shipped(
        command="pyzoo train mib-multimodal --preset digits",
        commit=LATEST,
        about="MIB's model of digits and their labels: the class, which both share, is separated from the style of handwriting.",
        use="to draw digits given a label, to label a digit, and to exchange what is private to images",
        limits="8 x 8 digits, enlarged to 28 x 28; trained for a minute, and some digits come out as others",
        differs="besides the paper's penalties a crossed cost, a penalty on the dependence of shared and private latents, and a "
        "weight of the label's likelihood (docs/results/mib.md)",
        data="scikit-learn's digits (UCI, Optical Recognition of Handwritten Digits), CC BY 4.0; they come with scikit-learn",
        metrics={
            **ELBO,
            "cross_accuracy/digit_to_label": "how often the label drawn given a digit is right",
            "cross_accuracy/label_to_digit": "how often a digit drawn given a label is of its class, as a classifier says",
            "joint_coherence": "share of the pairs drawn from the prior in which the label fits the digit",
            "u_changes_style": "how much a digit changes with its private latent; 1 is as much as two of a class differ",
        },
    ),
    "mib-fair-adult": Shipped(
        command="pyzoo train mib-fair",
        commit=LATEST,
        about="MIB's representation of the census table Adult, by which a classifier treats both sexes somewhat more alike.",
        use="to study how accuracy is traded for fairness",
        limits="logistic regression on the columns themselves has an accuracy of 0.85 and a `deo` of 0.09, and fairlearn's "
        "reductions 0.85 and 0.027; over ten splits such representations have 0.836 and 0.037 ± 0.022 (docs/results/mib.md). The "
        "sex can still be read from it in part, see `leakage`; not for decisions about people, with data of 1994",
        differs=FAIR,
        data="UCI Adult (Becker and Kohavi 1996), CC BY 4.0; needed to measure and to draw",
        metrics=FAIRNESS,
        commands=("figures", "explore"),
    ),
    "mib-fair-synthetic": Shipped(
        command="pyzoo train mib-fair --preset synthetic",
        commit=LATEST,
        about="MIB's representation of a synthetic table, with which a classifier treats both groups a little more alike.",
        use="to study how accuracy is traded for fairness, without data of people",
        limits="a synthetic table; the step that held-out rows chose is an early one, whose representation is little fairer than "
        "the columns themselves, and from which the groups can be told, see `leakage`",
        differs=FAIR,
        data=GENERATED + "`pyzoo.data.tables`",
        metrics=FAIRNESS,
        commands=("figures", "explore"),
    ),
    "mib-ood": Shipped(
        command="pyzoo train mib-ood",
        commit=LATEST,
        about="A prediction of colored digits that holds in environments unseen in training: MIB on sharpened environments.",
        use="to see a prediction that does not go by the color, which tells the label in training only",
        limits="two classes of colored digits; where colors stay as in training, a prediction by color would be better; it is no "
        "model to draw images from",
        differs="environments are sharpened first, which most of the accuracy comes from, and pixels are dropped out",
        data=MNIST,
        metrics={
            "accuracy_train_envs": "on the training images; shapes alone are right in 0.75 at most, colors in 0.85",
            "accuracy_held_out": "on held-out images of the same environments",
            "accuracy_test_env": "where colors are wrong in nine cases of ten",
        },
        commands=("figures",),
    ),
    "mib-structure": Shipped(
        command="pyzoo train mib-structure",
        commit="aca0ae5",
        about="MIB's learned structure: which of several views depends on which latent, on data whose structure is known.",
        use="to look at learned masks, by `pyzoo figures`",
        limits="generated data of a few views",
        differs="the paper has no experiment; data, sizes and a penalty on the number of parents are ours",
        data=GENERATED + "`pyzoo.data.planted`",
        metrics={
            "edges_correct": "share of all possible edges that are right",
            "structure_found": "1 if all are",
            "edges": "their number",
        },
        commands=("figures", "sample"),
    ),
    "monet-tetrominoes": Shipped(
        command="pyzoo train monet --relation place --num-pieces 2 --num-slots 3 --precision bf16",
        commit="d67733d",
        about="MONet on scenes of two tetrominoes: takes them apart into slots without a label.",
        use="to segment such scenes, and to compare with mpp-monet-tetrominoes, whose slots are related",
        limits="32 x 32 scenes of two pieces; it draws no scenes, and knows of no relation",
        differs="the divergence of the masks moves the decoder's masks ten times as strongly as the attention's; small images",
        data=GENERATED + "`pyzoo.data.scenes`",
        metrics={**SEPARATION, **RELATION},
        commands=("figures", "explore"),
    ),
    "mpp-monet-tetrominoes": Shipped(
        command="pyzoo train mpp-monet --relation place --num-pieces 2 --num-slots 3 --global-dim 12 --seed 1 --precision bf16",
        commit="d67733d",
        about="MONet with the message passing prior on two tetrominoes at mirrored places, a relation that it has learned.",
        use="to impute a slot from the others, and as an example of the prior",
        limits="32 x 32 scenes of two pieces, whose places are related and whose colors are not; drawn scenes are blurred",
        differs="as monet-tetrominoes, and the prior's scales and weights are learned",
        data=GENERATED + "`pyzoo.data.scenes`",
        metrics={
            **SEPARATION,
            **RELATION,
            "related_drawn": "share of drawn scenes whose pieces are at mirrored places",
            "related_drawn_by_chance": "the same where each piece is another drawn scene's",
            **DRAWN,
        },
    ),
    "genesis-sprites": Shipped(
        command="pyzoo train genesis --seed 1 --precision bf16 --validate-every 500",
        commit="996023a",
        about="Genesis on scenes of sprites: slots with an autoregressive prior, from which it draws scenes.",
        use="to take scenes of sprites apart, and to draw some",
        limits="32 x 32 scenes of up to four sprites, which it separates in part",
        differs="a fixed weight of the divergences in place of GECO's, a tenth of it for the masks, which start "
        "small; a decoder that learns shapes late; small images and networks (docs/results/message-passing-prior.md)",
        data=GENERATED + "`pyzoo.data.scenes`, after Multi-dSprites",
        metrics={**SEPARATION, **DRAWN},
    ),
    "mpp-genesis-sprites": Shipped(
        command="pyzoo train mpp-genesis --seed 1 --precision bf16 --validate-every 500",
        commit="996023a",
        about="Genesis with the message passing prior on scenes of sprites, whose slots are related by one latent of the scene.",
        use="to compare with genesis-sprites, which has the same networks",
        limits="as genesis-sprites: sprites are separated in part, and no better; they are not related, so that there is "
        "nothing to impute",
        differs="as genesis-sprites, and the prior's scales and weights are learned",
        data=GENERATED + "`pyzoo.data.scenes`, after Multi-dSprites",
        metrics={**SEPARATION, **DRAWN},
    ),
}


def card(name: str, shipped: Shipped, model: TrainedModel) -> str:
    """The text of a model's ``README.md``."""
    results = model.folder.results()
    hours = results["training_seconds"] / 3600
    minutes = round(60 * hours)
    took = f"{hours:.1f} hours" if hours >= 2 else f"{minutes} minutes" if minutes > 1 else "a minute"
    kept = f", of which step {model.step:,} is kept" if model.step != results["trained"] else ""
    threads = results["hardware"]["threads"]
    trained = (
        f"`{shipped.command}` at commit {shipped.commit}: {results['trained']:,} steps in {took} on {threads} "
        f"thread{'s' if threads > 1 else ''} of an {results['machine'].partition(',')[0]} machine{kept}"
    )
    in_8_bits = "matrices in 8 bits, with a step for each row, and small ones in half precision"
    bits = {32: "as they were trained", 16: "matrices in half precision", 8: in_8_bits}
    rows = {
        "What it is": f"`{model.config['recipe']}`, {results['parameters']:,} parameters, after {model.recipe.about.paper}",
        "Intended use": shipped.use,
        "Limits": shipped.limits,
        "Differs from the paper": shipped.differs,
        "Data": shipped.data,
        "Trained by": trained,
        "Weights": f"{bits[shipped.bits]}; under the license of the package, Apache 2.0",
    }
    lines = [f"# {name}", "", *textwrap.wrap(shipped.about, 120), "", "| | |", "|---|---|"]
    lines += [f"| {what} | {text} |" for what, text in rows.items()]
    measured_by = f"pyzoo evaluate {name}{' --full' if results['full'] else ''}"
    lines += ["", "## Metrics", "", f"By `{measured_by}`, with these rounded weights:"]
    lines += ["", "| metric | value | |", "|---|---|---|"]
    lines += [f"| `{metric}` | {results['metrics'][metric]:.4g} | {words} |" for metric, words in shipped.metrics.items()]
    if results["note"]:
        lines += ["", results["note"]]
    lines += ["", "## Use", "", "```python", "import pyzoo", "", f'trained = pyzoo.load("{name}")', "```", "", "```"]
    lines += [f"pyzoo {command} {name}" for command in shipped.commands]
    return "\n".join([*lines, "```", ""])


def listed(page: str) -> str:
    """The text of the page of all models, with its table as it should be."""
    before, heading, rest = page.partition("| | |\n|---|---|\n")
    rows = [f"| [{name}](../../pyzoo/trained/{name}/README.md) | {MODELS[name].about} |\n" for name in trained()]
    _, end, after = rest.partition("\n\n")
    return "".join([before, heading, *rows, end[1:], after])


def write_card(name: str) -> None:
    """Writes the card of a model that has been packed and measured."""
    model = TrainedModel(TRAINED / name)
    (model.path / "README.md").write_text(card(name, MODELS[name], model), encoding="utf-8")


def measure(name: str, model: TrainedModel, results: Mapping[str, Any]) -> dict[str, float]:
    """Measures a model that has been packed, and writes its card; returns what it found.

    Args:
        name: of the model.
        model: itself.
        results: of an evaluation, whose metrics are replaced.
    """
    measured = model.measure(results["full"])
    model.folder.write_results({**results, "metrics": measured})
    write_card(name)
    return measured


def make(name: str, run: Run) -> None:
    """Packs a run, measures what was packed and writes its card."""
    shipped = MODELS[name]
    shutil.rmtree(TRAINED / name, ignore_errors=True)
    model = run.pack(TRAINED / name, shipped.bits)
    results = run.folder.results()
    measured = measure(name, model, results)
    for metric in shipped.metrics:
        print(f"{name}: {metric} {results['metrics'][metric]:.5g} as trained, {measured[metric]:.5g} as packed")
    size = sum(file.stat().st_size for file in model.path.iterdir())
    print(f"{name}: {size / 1e6:.2f} MB", flush=True)


def main() -> None:
    """Makes those that are named on the command line, or all."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if sys.argv[1:] == ["--cards"]:
        for name in trained():
            write_card(name)
    elif sys.argv[1] == "--measure":
        for name in sys.argv[2:]:
            model = TrainedModel(TRAINED / name)
            measure(name, model, model.folder.results())
    else:
        make_all(Path(sys.argv[1]), sys.argv[2:] or list(MODELS))
    PAGE.write_text(listed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def make_all(runs: Path, names: Sequence[str]) -> None:
    """Makes the models whose runs are there, and says how the others are trained."""
    for name in names:
        if name not in MODELS:
            sys.exit(f"there is no model '{name}' in docs/trained.py")
        if not (runs / name).exists():
            print(f"{name} has no run yet: {MODELS[name].command} --out {runs / name}")
        else:
            make(name, Run(runs / name))


if __name__ == "__main__":
    main()
