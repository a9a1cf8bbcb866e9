"""Lessons: games that show one thing each, as links with three sentences."""

from dataclasses import dataclass
from urllib.parse import urlencode


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A game, perhaps beside a second one that differs in little, and what to see in it."""

    name: str
    title: str
    sentences: tuple[str, str, str]
    """What it is, what will be seen, and why."""
    a: dict[str, str]
    """The parameters of the game that aren't the defaults."""
    b: dict[str, str] | None = None
    """Those in which a second game differs; None where there is one game."""
    fate: dict[str, str] | None = None
    """The small game of the panel Fate that goes with it."""

    @property
    def query(self) -> str:
        """The query of its link."""
        second = {f"b.{name}": value for name, value in (self.b or {}).items()}
        small = {f"fate.{name}": value for name, value in (self.fate or {}).items()}
        return urlencode({"lesson": self.name, **self.a, **second, **small})

    def as_json(self) -> dict[str, object]:
        """For the page."""
        return {
            "name": self.name,
            "title": self.title,
            "sentences": list(self.sentences),
            "query": self.query,
        }


_ARTICLE = {"objective": "minimax", "regularizers": ""}
_PLAIN = {"objective": "non-saturating", "regularizers": ""}
_SLOW_D = {**_PLAIN, "optim_D.lr": "0.0001", "optim_D.beta1": "0.5", "optim_G.beta1": "0.5"}

LESSONS = (
    Lesson(
        name="circles",
        title="The article's loss circles",
        sentences=(
            "Goodfellow's minimax loss, nothing added: G's points run after the hills of D, and D "
            "moves the hills to where they came from.",
            "|v| stays large and G's points jump between the modes, while the averaged G, whose "
            "modes are counted, covers the ring; in the panel Fate the path goes round, never in.",
            "The eigenvalues of the game at its equilibrium are +-i/2: pure rotation, which finite "
            "steps turn into growth.",
        ),
        a=_ARTICLE,
        fate={"objective": "minimax", "update": "simultaneous"},
    ),
    Lesson(
        name="damping",
        title="R1 damps",
        sentences=(
            "The same loss on both sides; B adds R1, a penalty on D's slope where the data is.",
            "A's loss of G swings and its |v| stays large; in B both come near rest, while the "
            "averages of both cover the ring.",
            "R1 moves the eigenvalues from +-i/2 to -gamma/2 +- i sqrt(1/4 - gamma^2/4): to the "
            "left, so that deviations decay.",
        ),
        a=_PLAIN,
        b={"regularizers": "r1=0.1"},
        fate={
            "objective": "minimax",
            "regularizers": "r1=0.3",
            "update": "simultaneous",
            "rounds": "200",
        },
    ),
    Lesson(
        name="slow",
        title="Too much R1 is slow",
        sentences=(
            "A has R1 and R2 of weight 0.1, B of weight 10.",
            "B doesn't circle, it creeps: D may hardly have a slope, so that G is hardly pulled.",
            "Beyond critical damping, gamma = 1 in the Dirac-GAN, one eigenvalue goes back to 0, "
            "and the slowest one is what is waited for.",
        ),
        a={},
        b={"regularizers": "r1=10 r2=10"},
        fate={
            "objective": "minimax",
            "regularizers": "r1=6",
            "update": "simultaneous",
            "rounds": "400",
        },
    ),
    Lesson(
        name="wasserstein",
        title="Wasserstein without a penalty",
        sentences=(
            "A critic whose slope nothing bounds; B has a zero-centred penalty between data and "
            "samples.",
            "The scores of A grow without end and its points leave every mode; B stays.",
            "The distance is one only over 1-Lipschitz critics: without the bound the game is "
            "bilinear, eigenvalues +-i, and has no limit to D's size.",
        ),
        a={"objective": "wasserstein", "regularizers": ""},
        b={"regularizers": "zero-gp=0.1"},
        fate={"game": "lq", "objective": "wasserstein", "update": "simultaneous"},
    ),
    Lesson(
        name="momentum",
        title="Momentum 0.9 breaks what 0 keeps",
        sentences=(
            "The plain loss with Adam's first beta 0, and in B with 0.9, as for classifiers.",
            "The average of A covers the ring; that of B loses modes and half of its good points, "
            "though its |v| is smaller.",
            "With frozen second moments the largest stable step of the damped Dirac game falls "
            "from 1.2 at 0 to 0.07 at 0.9: momentum pushes on along a direction that has turned.",
        ),
        a=_PLAIN,
        b={"optim_G.beta1": "0.9", "optim_D.beta1": "0.9"},
        fate={"objective": "minimax", "regularizers": "r1=0.3", "momentum": "0.9", "lr": "0.02"},
    ),
    Lesson(
        name="two-time-scales",
        title="Two time scales",
        sentences=(
            "The plain loss; in B D learns four times as fast as G (Heusel et al. 2017).",
            "B covers no more than A, and its |v| is twice as large.",
            "In the Dirac-GAN rates alone change nothing but the speed of the rotation, the "
            "eigenvalues stay imaginary: time scales help a game that is damped already.",
        ),
        a={**_PLAIN, "optim_G.lr": "0.0005", "optim_D.lr": "0.0005"},
        b={"optim_D.lr": "0.002"},
    ),
    Lesson(
        name="unrolled",
        title="Unrolled: G looks ahead",
        sentences=(
            "In B G differentiates through five steps of D that are yet to come (Metz et al. "
            "2017).",
            "A hops from mode to mode, B spreads: where all points would go to one mode, the D to "
            "come would already be there.",
            "Each round of B costs several of A: look at the rounds a second.",
        ),
        a=_SLOW_D,
        b={"unrolled_steps": "5", "unrolled_lr": "0.01"},
    ),
    Lesson(
        name="packing",
        title="Mode collapse and packing",
        sentences=(
            "The plain loss and a D that learns slowly; in B D judges two points at once (PacGAN, "
            "Lin et al. 2018).",
            "A puts all its points into one place and moves on, B keeps most of the ring.",
            "Two points of one place are rare in the data, so that a collapse is visible in each "
            "pack, while single points of it look perfect.",
        ),
        a=_SLOW_D,
        b={"packing": "2"},
    ),
    Lesson(
        name="lazy",
        title="Lazy penalties",
        sentences=(
            "B computes R1 and R2 in every sixteenth step only, sixteen times as strong (Karras et "
            "al. 2020).",
            "B plays a quarter more rounds a second and covers as much; R3GAN's authors report "
            "that it fails for them.",
            "On average the damping is the same, but the kick every sixteen steps is a step size "
            "of its own, and that one has a limit.",
        ),
        a={},
        b={"regularizers": "r1=0.1/16 r2=0.1/16"},
    ),
    Lesson(
        name="averages",
        title="Why averages look better",
        sentences=(
            "The plain loss again, with the average of G's weights drawn beside the last ones.",
            "The last G circles, the average stands still and often covers more.",
            "A circle's centre is the equilibrium: the average of a rotating path goes to where "
            "the path itself never is (Gidel et al. 2019).",
        ),
        a={**_PLAIN, "ema_kimg": "100"},
    ),
)
