"""Every error that a user can cause or must know of.

HarnessError                  base: one line for the user, never a traceback
├── UsageError                the command cannot mean anything; exit code 2
│   ├── UnknownNameError      no model, task, scorer or metric of that name
│   └── OptionError           an option of a plugin is unknown or has a bad value
├── MissingDataError          a task's data is not where it was looked for
├── MissingExtraError         an optional package is not installed; names the extra
├── PluginError               a plugin breaks its contract, or a name has two owners
├── MetricUnavailable         a metric needs what is not here: Java, a parser, scores; no number takes its place
│   └── ToolError             a metric's tool failed, took too long, or gave numbers that cannot be right
├── RecordError               a record or a predictions file cannot be read or trusted
├── DownloadError             a file cannot be fetched, or is not the one that was wanted (harness/downloads.py)
├── ProcessesError            another process of one command ended or cannot be reached (harness/processes.py)
├── ArchiveError              an archive is damaged, unsafe or of no kind that is read (harness/archives.py)
└── ItemError                 one item failed; the run goes on and counts it
    ├── AudioError            the clip cannot be decoded, or its samples are unusable
    └── ModelLimitError       the model says that it cannot take this item
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """Base of every error that is shown to a user as one message."""


class UsageError(HarnessError):
    """The command, as typed, cannot be carried out."""


class UnknownNameError(UsageError):
    """A name that no plugin has; the message lists near ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        super().__init__(f"Unknown {kind} '{name}'.{hint} Available: {', '.join(known) or 'none'}.")


class OptionError(UsageError):
    """An option of a model, task or scorer is unknown or has a value it cannot take."""


class MissingDataError(HarnessError):
    """A task's data was not found; the message says where it comes from and how to get it."""


class MissingExtraError(HarnessError):
    """An optional package is missing. `hint` says how to get it where the extra alone does not."""

    def __init__(self, package: str, extra: str, needed_for: str, hint: str | None = None) -> None:
        # The distribution is on no package index, so its name is nothing that pip could find.
        hint = hint or f"In the folder of the clone: pip install -e '.[{extra}]'"
        super().__init__(f"{needed_for} needs the package '{package}', which is not installed. {hint}")


class PluginError(HarnessError):
    """A plugin breaks its contract, or two plugins claim one name."""


class RecordError(HarnessError):
    """A record or a predictions file is unreadable, incomplete or of an unknown version."""


class ItemError(HarnessError):
    """One item failed. The runner records it and goes on."""


class AudioError(ItemError):
    """A clip cannot be decoded, or holds samples that mean nothing."""


class ModelLimitError(ItemError):
    """The model cannot take this item, and says why."""


class MetricUnavailable(HarnessError):
    """A metric cannot be computed here; the message is the reason, and no other number takes its place."""


class ToolError(MetricUnavailable):
    """A tool failed, ran out of time, or did not give one finite score for each item."""
