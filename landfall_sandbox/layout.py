"""Dates, threads and labels of the generated mailbox, by arithmetic on the index alone.

Index 0 is the oldest message. Indexes from `size` on are deliveries, later than all others.
"""

from collections.abc import Callable

from landfall_sandbox.texts import Dice

# 2018-06-30 and 2026-06-30, midnight UTC, in milliseconds.
SPAN_START_MS = 1_530_316_800_000
SPAN_END_MS = 1_782_777_600_000
# Deliveries arrive about every 90 seconds of mailbox time.
DELIVERY_STEP_MS = 90_000

FIRST_HISTORY_ID = 10_000_000
HISTORY_STEP = 3

# Threads interleave inside blocks of 60 messages; of the mixed ones each has 2.5 on average.
BLOCK = 60
THREAD_SIZES = {
    "mixed": (12, 6, 5, 4, 4, 3, 3) + (2,) * 6 + (1,) * 11,
    "four": (4,) * 15,
    "none": (1,) * BLOCK,
}
DEFAULT_THREADS = "mixed"
BLOCK_VARIANTS = 4
# Prime, so that labels, threads and kinds of content fall together in every combination.
LABEL_PERIOD = 251

SYSTEM_LABELS = (
    "CHAT",
    "SENT",
    "INBOX",
    "IMPORTANT",
    "TRASH",
    "DRAFT",
    "SPAM",
    "CATEGORY_FORUMS",
    "CATEGORY_UPDATES",
    "CATEGORY_PERSONAL",
    "CATEGORY_PROMOTIONS",
    "CATEGORY_SOCIAL",
    "STARRED",
    "UNREAD",
)
USER_LABELS = {
    "Label_1": "Clients",
    "Label_2": "Clients/Harbor Supply",
    "Label_3": "Receipts",
    "Label_4": "To read",
    "Label_5": "Travel",
    "Label_6": "\u5c55\u793a/\U0001f4e6",
}
LABEL_NAMES = {label: label for label in SYSTEM_LABELS} | USER_LABELS
_CATEGORIES = ("PERSONAL", "PERSONAL", "UPDATES", "PROMOTIONS", "SOCIAL", "FORUMS")
# Folders of one label period; every kind occurs in a mailbox of 250.
_FOLDERS = (
    ("INBOX",) * 120 + ("",) * 86 + ("SENT",) * 26 + ("SPAM",) * 8 + ("TRASH",) * 8 + ("DRAFT",) * 3
)

LabelTest = Callable[[frozenset[str]], bool]


class Layout:
    """Where each generated message stands; a pure function of (seed, size, index)."""

    def __init__(self, seed: int, size: int, threads: str = DEFAULT_THREADS) -> None:
        """Prepare the periodic tables for `seed`; `size` messages share the eight years.

        `threads` is a key of THREAD_SIZES.
        """
        self.size = size
        self._seed = seed
        dice = Dice(seed * 2 + 1)
        self._labels = [self._draw_labels(dice, folder) for folder in dice.shuffled(_FOLDERS)]
        self._label_sets = [frozenset(labels) for labels in self._labels]
        sizes = THREAD_SIZES[threads]
        self._threads = [self._draw_threads(dice, sizes) for _ in range(BLOCK_VARIANTS)]
        self._slot_ms = (SPAN_END_MS - SPAN_START_MS) // max(size, 1)

    @staticmethod
    def _draw_labels(dice: Dice, folder: str) -> tuple[str, ...]:
        labels = [folder] if folder else []
        if folder in ("INBOX", ""):
            labels.append(f"CATEGORY_{dice.pick(_CATEGORIES)}")
            if dice.below(6) == 0:
                labels.append("IMPORTANT")
        if folder not in ("SENT", "DRAFT") and dice.below(4) == 0:
            labels.append("UNREAD")
        if folder not in ("SPAM", "TRASH"):
            if dice.below(16) == 0:
                labels.append("STARRED")
            labels += [label for label in USER_LABELS if dice.below(20) == 0]
        return tuple(labels)

    @staticmethod
    def _draw_threads(dice: Dice, sizes: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return, for each position in a block, the positions of its thread in order."""
        positions = dice.shuffled(range(BLOCK))
        members: list[tuple[int, ...]] = [()] * BLOCK
        for length in sizes:
            thread = tuple(sorted(positions[:length]))
            positions = positions[length:]
            for position in thread:
                members[position] = thread
        return members

    def date_ms(self, index: int) -> int:
        """Return the internal date in epoch milliseconds; strictly increasing with `index`."""
        if index >= self.size:
            start, slot = SPAN_END_MS + (index - self.size) * DELIVERY_STEP_MS, DELIVERY_STEP_MS
        else:
            span = SPAN_END_MS - SPAN_START_MS
            start, slot = SPAN_START_MS + index * span // self.size, self._slot_ms
        return start + (index * 0x9E3779B1 + self._seed) % slot

    def base_history_id(self, index: int) -> int:
        """Return the id of the history record with which a generated message arrived."""
        return FIRST_HISTORY_ID + (index + 1) * HISTORY_STEP

    def thread(self, index: int) -> list[int]:
        """Return the indexes of the message's thread in order, those yet to arrive included."""
        block, position = divmod(index, BLOCK)
        variant = self._threads[block % BLOCK_VARIANTS]
        return [block * BLOCK + member for member in variant[position]]

    def thread_root(self, index: int) -> int:
        """Return the index of the first message of the thread."""
        block, position = divmod(index, BLOCK)
        return block * BLOCK + self._threads[block % BLOCK_VARIANTS][position][0]

    def labels(self, index: int) -> tuple[str, ...]:
        """Return the label ids a message arrives with."""
        return self._labels[index % LABEL_PERIOD]

    def matching(self, test: LabelTest) -> list[bool]:
        """Return whether the labels at each place of the label period pass `test`."""
        return [test(labels) for labels in self._label_sets]

    def count_messages(self, total: int, matches: list[bool]) -> int:
        """Return how many of the first `total` messages stand at a place in `matches`."""
        periods, rest = divmod(total, LABEL_PERIOD)
        return periods * sum(matches) + sum(matches[:rest])

    def count_threads(self, total: int, matches: list[bool]) -> int:
        """Return how many threads have one of the first `total` messages in `matches`.

        Threads and labels repeat together after `_common_period` messages, so one period and
        the rest are all that is ever walked through.
        """
        if total <= self._common_period:
            return self._walk_threads(total, matches)
        periods, rest = divmod(total, self._common_period)
        whole = self._walk_threads(self._common_period, matches)
        return periods * whole + self._walk_threads(rest, matches)

    @property
    def _common_period(self) -> int:
        return LABEL_PERIOD * BLOCK * BLOCK_VARIANTS

    def _walk_threads(self, total: int, matches: list[bool]) -> int:
        roots = {self.thread_root(index) for index in range(total) if matches[index % LABEL_PERIOD]}
        return len(roots)
