"""The 16 everyday classes of Geirhos and others, and which of ImageNet-1K's 1000 classes are of each.

The rule: WordNet's synsets below a class's word that are among the 1000, without those that the authors took out by
hand, most of them words with another sense (crane, kite, boxer, chow). The numbers are facts of the authors' toolbox
(bethgelab/model-vs-human, MIT, `human_categories.py`), compared one by one: 207 of the 1000 are of a class. That they
name what they should is tested against the names that timm ships.
Source: Geirhos et al., "Generalisation in humans and deep neural networks" (NeurIPS 2018, arXiv 1808.08750).
"""


def _without(first: int, last: int, *left_out: int) -> tuple[int, ...]:
    return tuple(i for i in range(first, last + 1) if i not in left_out)


MEMBERS: dict[str, tuple[int, ...]] = {
    "airplane": (404,),
    "bear": (294, 295, 296, 297),
    "bicycle": (444, 671),
    "bird": (
        *_without(8, 24, 9, 17, 21),
        *_without(80, 100, 84, 85, 86, 97),
        *_without(127, 145, 134),
    ),
    "boat": (472, 554, 625, 814, 914),
    "bottle": (440, 720, 737, 898, 899, 901, 907),
    "car": (436, 511, 817),
    "cat": (281, 282, 283, 284, 285, 286),
    "chair": (423, 559, 765, 857),
    "clock": (409, 530, 892),
    "dog": _without(152, 268, 192, 204, 227, 242, 251, 258, 260, 264),
    "elephant": (385, 386),
    "keyboard": (508, 878),
    "knife": (499,),
    "oven": (766,),
    "truck": (555, 569, 656, 675, 717, 734, 864, 867),
}
"""Classes of ImageNet-1K by number, in the usual order of its synsets, by class of the sixteen."""

NAMES = tuple(MEMBERS)
CLASSES = 1000
