"""Train the recipes on their samples and keep the model cards, with their figures, in model_cards/.

    python benchmarks/model_cards.py [recipe ...]

A card is that of the run, but for its figures, which lie in a folder of the recipe's name. The same versions give the
same card, apart from times and the machine.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from hf_relearn.cards import CARD_FILE, card_figures

ROOT = Path(__file__).parents[1]
CARDS = ROOT / "model_cards"
RECIPES = ("train_cremad", "train_image_text")


def train(recipe: str, folder: Path) -> Path:
    """Run a recipe as it is, on its sample; returns the folder of its run."""
    output = folder / recipe
    shutil.rmtree(output, ignore_errors=True)
    flags = ["--output_dir", str(output), "--license", "apache-2.0", "--use_cpu", "--disable_tqdm", "true"]
    subprocess.run([sys.executable, str(ROOT / "recipes" / f"{recipe}.py"), *flags], check=True, cwd=ROOT)
    return output


def keep_card(run: Path, cards: Path) -> Path:
    """Copy a run's card and the figures that it shows to where the cards stand."""
    card = (run / CARD_FILE).read_text(encoding="utf-8")
    figures = cards / run.name
    shutil.rmtree(figures, ignore_errors=True)
    figures.mkdir(parents=True)
    for path in card_figures(card):
        kept = figures / Path(path).name
        shutil.copyfile(run / path, kept)
        card = card.replace(f"]({path})", f"]({kept.relative_to(cards).as_posix()})")
    target = cards / f"{run.name}.md"
    target.write_text(card, encoding="utf-8")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=RECIPES, metavar="recipe", help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--folder", type=Path, default=Path("outputs/cards"), help="where the runs go")
    arguments = parser.parse_args()
    for recipe in arguments.recipes:
        print(keep_card(train(recipe, arguments.folder.resolve()), CARDS))


if __name__ == "__main__":
    main()
