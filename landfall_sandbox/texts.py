"""Words, names and awkward texts that the generated mail is made of; all of it fictional."""

import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

_Item = TypeVar("_Item")

OWNER_ADDRESS = "sam.rivers@example.com"
OWNER_NAME = "Sam Rivers"


def _split(text: str) -> list[str]:
    return text.split()


_FIRST_NAMES = _split(
    "Ada Bruno Chidi Dana Elif Farah Goran Hana Ivo Jun Kofi Lena Mira Noor Otto Priya Quinn "
    "Rosa Sven Tariq Uma Vera Wanda Ximena Yara Zoran"
)
_LAST_NAMES = _split(
    "Abara Brandt Castell Dray Eklund Farrow Grieve Holm Iversen Jarek Kestrel Lindqvist Marlow "
    "Nakata Okoro Pell Quist Rook Sorrel Thorne Umber Vance Wilder Yarrow Zeller"
)
_DOMAINS = _split(
    "example.com example.org example.net mail.example.com news.example.org shop.example.net "
    "billing.example.com lists.example.org"
)
_WORDS = _split(
    "account agenda answer april archive balance barrel basket billing bridge budget cable "
    "calendar candle carrier change charge client coast column confirm contract copper corner "
    "delivery detail discount draft early engine estimate evening export factor february field "
    "figure final forest garden glass harbor import invoice island january journal kitchen "
    "ladder launch ledger lemon letter library market meeting meter minute mirror monday morning "
    "notice november number october office orange order outline owner paper parcel payment "
    "pencil pepper photo planet pocket policy printer project quarter question quiet receipt "
    "record refund region remote renewal reply report request return review river route sample "
    "schedule season server shipment signal silver sketch source station storage summary supply "
    "table ticket timber token tower travel tuesday update vendor version village weather "
    "weekly window winter yellow"
)

EMOJI_TEXT = "Launch day \U0001f680 thanks all \U0001f469\u200d\U0001f4bb\U0001f389 \u2764\ufe0f"
RTL_TEXT = "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643 (ref 42) \u05e9\u05dc\u05d5\u05dd"
CYRILLIC_TEXT = "\u0421\u0447\u0451\u0442 \u0437\u0430 \u0438\u044e\u043d\u044c \u2116 42"
JAPANESE_TEXT = "\u8acb\u6c42\u66f8\u306e\u304a\u77e5\u3089\u305b \u30c6\u30b9\u30c8"
LATIN_TEXT = "R\xe9sum\xe9 de la r\xe9union \xe0 Z\xfcrich, gr\xfc\xdfe"

AWKWARD_SUBJECTS = (
    'He said "it\'s `done`" \\ and left \\\\',
    "{{ config(materialized='table') }} {% raw %}",
    "Robert'); DROP TABLE messages;-- /* $1 %s */",
    "<b>bold</b> & &amp; <script>alert(1)</script>",
    "null",
    "C:\\new\\table\\u0041 ${HOME} $(date)",
)


class Person(NamedTuple):
    """A correspondent: display name and address."""

    name: str
    address: str

    def __str__(self) -> str:
        """Return the form used in address headers."""
        return f"{self.name} <{self.address}>"


OWNER = Person(OWNER_NAME, OWNER_ADDRESS)


class Dice:
    """Reproducible choices from one seed.

    Only `random()` and `getrandbits()` are used: their output for a seed is the same in every
    Python version, unlike that of `choice` or `shuffle`.
    """

    def __init__(self, seed: int) -> None:
        """Start the sequence that belongs to `seed`."""
        generator = random.Random(seed)
        self._random = generator.random
        self._bits = generator.getrandbits

    def below(self, limit: int) -> int:
        """Return a number from 0 to limit - 1."""
        return int(self._random() * limit)

    def pick(self, items: Sequence[_Item]) -> _Item:
        """Return one of `items`."""
        return items[int(self._random() * len(items))]

    def octets(self, size: int) -> bytes:
        """Return `size` arbitrary bytes."""
        return self._bits(size * 8).to_bytes(size, "little")

    def shuffled(self, items: Sequence[_Item]) -> list[_Item]:
        """Return `items` in an arbitrary order."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result


class Phrasebook:
    """Sentences, subjects and people, generated once and drawn from for every message."""

    def __init__(self) -> None:
        """Generate the pools (about 3 ms); they are the same for every mailbox."""
        dice = Dice(20260630)
        self.sentences = [self._sentence(dice) for _ in range(600)]
        self.subjects = [self._subject(dice) for _ in range(400)]
        self.people = [self._person(dice) for _ in range(300)]

    @staticmethod
    def _sentence(dice: Dice) -> str:
        words = [dice.pick(_WORDS) for _ in range(6 + dice.below(10))]
        return " ".join(words).capitalize() + "."

    @staticmethod
    def _subject(dice: Dice) -> str:
        return " ".join(dice.pick(_WORDS) for _ in range(2 + dice.below(5))).capitalize()

    @staticmethod
    def _person(dice: Dice) -> Person:
        first, last = dice.pick(_FIRST_NAMES), dice.pick(_LAST_NAMES)
        address = f"{first}.{last}{dice.below(90) + 10}@{dice.pick(_DOMAINS)}".lower()
        return Person(f"{first} {last}", address)
